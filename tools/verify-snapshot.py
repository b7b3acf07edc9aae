#!/usr/bin/python3
"""verify-snapshot.py [--json] [--no-ram] [--alone] FILE

Reads a snapshot by doc/skep-snapshot.5 and by nothing else: the ELF container, the digest, every
record's CBOR, the tables, the chain of parents, and all of RAM.  It shares no code with skep, so
that the two can be compared.  Python 3 and its standard library; runs that are compressed are
checked through the program zstd, and counted as not checked where that is missing.

Exit code: 0 the file is sound, 1 it is not, 2 wrong usage.
"""
import argparse
import array
import errno
import json
import multiprocessing
import operator
import os
import shutil
import stat
import struct
import subprocess
import sys

PAGE = 4096
CHUNK = 2 << 20
LOW_MAX = 0x80000000
HIGH_BASE = 0x100000000
SIZE_MAX = 0x8000000000
NOTES_MAX = 256 << 20
CHAIN_MAX = 32
MANIFEST, RECORD, CHECKSUMS, PAGES, END = range(0x534B4501, 0x534B4506)
TYPE_NAMES = {MANIFEST: "MANIFEST", RECORD: "RECORD", CHECKSUMS: "CHECKSUMS", PAGES: "PAGES",
              END: "END"}
RAW, ZSTD, ZERO = range(3)


class Bad(Exception):
    """What is wrong with the file."""


def need(condition, what):
    if not condition:
        raise Bad(what)


# ---- XXH3 -------------------------------------------------------------------------------------
#
# The variant for more than 240 bytes, with seed 0 and the default secret.  Shorter inputs do not
# occur: a page has 4096 bytes, and what the digest covers has a manifest in it.

M64 = (1 << 64) - 1
P32_1, P32_2, P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
P64_1, P64_2, P64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P64_4, P64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")
STRIPES = (len(SECRET) - 64) // 8                   # of 64 bytes, in a block
BLOCK = 64 * STRIPES
STRIPE_KEYS = b"".join(SECRET[8 * n:8 * n + 64] for n in range(STRIPES))
SCRAMBLE_KEYS = struct.unpack("<8Q", SECRET[-64:])
BATCH = 256                                         # blocks whose keys are applied at once
BATCH_KEYS = int.from_bytes(STRIPE_KEYS * BATCH, "little")


def _u(data, kind):
    a = array.array(kind, data)
    if sys.byteorder == "big":
        a.byteswap()
    return a


def _accumulate(acc, data, keys):
    """Adds stripes to the accumulators; data and keys (an integer) are equally long."""
    n = len(data)
    keyed = _u((int.from_bytes(data, "little") ^ keys).to_bytes(n, "little"), "I")
    products = list(map(operator.mul, keyed[0::2], keyed[1::2]))
    words = _u(data, "Q")
    return [(acc[i] + sum(products[i::8]) + sum(words[i ^ 1::8])) & M64 for i in range(8)]


def _accumulators(data):
    acc = [P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1]
    n = len(data)
    blocks = (n - 1) // BLOCK
    for first in range(0, blocks, BATCH):
        count = min(BATCH, blocks - first)
        part = data[first * BLOCK:(first + count) * BLOCK]
        keys = BATCH_KEYS if count == BATCH else int.from_bytes(STRIPE_KEYS * count, "little")
        keyed = _u((int.from_bytes(part, "little") ^ keys).to_bytes(len(part), "little"), "I")
        products = list(map(operator.mul, keyed[0::2], keyed[1::2]))
        words = _u(part, "Q").tolist()
        for b in range(0, count * 8 * STRIPES, 8 * STRIPES):
            end = b + 8 * STRIPES
            for i in range(8):
                a = acc[i] + sum(products[b + i:end:8]) + sum(words[b + (i ^ 1):end:8]) & M64
                acc[i] = ((a ^ a >> 47 ^ SCRAMBLE_KEYS[i]) * P32_1) & M64
    stripes = (n - 1 - blocks * BLOCK) // 64
    if stripes:
        part = data[blocks * BLOCK:blocks * BLOCK + stripes * 64]
        acc = _accumulate(acc, part, int.from_bytes(STRIPE_KEYS[:len(part)], "little"))
    return _accumulate(acc, data[-64:], int.from_bytes(SECRET[-64 - 7:-7], "little"))


def _merge(acc, secret, start):
    keys = struct.unpack("<8Q", secret)
    for i in range(0, 8, 2):
        product = (acc[i] ^ keys[i]) * (acc[i + 1] ^ keys[i + 1])
        start += (product ^ product >> 64) & M64
    h = start & M64
    h ^= h >> 37
    h = h * 0x165667919E3779F9 & M64
    return h ^ h >> 32


def xxh3_64(data):
    assert len(data) > 240
    return _merge(_accumulators(data), SECRET[11:75], len(data) * P64_1 & M64)


def xxh3_128(data):
    """In canonical form."""
    assert len(data) > 240
    acc = _accumulators(data)
    low = _merge(acc, SECRET[11:75], len(data) * P64_1 & M64)
    high = _merge(acc, SECRET[-64 - 11:-11], ~(len(data) * P64_2) & M64)
    return struct.pack(">QQ", high, low)


# ---- CBOR -------------------------------------------------------------------------------------

class Cbor:
    """One item in deterministic form (RFC 8949, 4.2.1)."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        need(n <= len(self.data) - self.at, "CBOR that ends early")
        self.at += n
        return self.data[self.at - n:self.at]

    def head(self):
        byte = self.take(1)[0]
        major, info = byte >> 5, byte & 31
        if info < 24:
            return major, info
        need(info < 28, "CBOR of indefinite length, or reserved")
        need(major != 7, "CBOR of a type that does not occur")
        value = int.from_bytes(self.take(1 << info - 24), "big")
        shortest = 24 if info == 24 else 1 << (8 << info - 25)
        need(value >= shortest, "a CBOR number that is not in its shortest form")
        return major, value

    def text(self, n):
        try:
            return bytes(self.take(n)).decode("utf-8")
        except UnicodeDecodeError:
            raise Bad("CBOR text that is no UTF-8") from None

    def item(self, depth=0):
        need(depth < 16, "CBOR that is nested too deeply")
        major, n = self.head()
        if major == 0:
            return n
        if major == 1:
            return -1 - n
        if major == 2:
            return bytes(self.take(n))
        if major == 3:
            return self.text(n)
        if major == 4:
            need(n <= len(self.data) - self.at, "a CBOR array that ends early")
            return [self.item(depth + 1) for _ in range(n)]
        if major == 5:
            return self.map(n, depth)
        need(major == 7 and n in (20, 21), "CBOR of a type that does not occur")
        return n == 21

    def map(self, n, depth):
        out, last = {}, b""
        need(n <= len(self.data) - self.at, "a CBOR map that ends early")
        for _ in range(n):
            begin = self.at
            major, size = self.head()
            need(major == 3, "a CBOR map with a key that is no text")
            key = self.text(size)
            encoded = bytes(self.data[begin:self.at])
            need(encoded > last, f"CBOR keys that are out of order at {key!r}")
            last = encoded
            out[key] = self.item(depth + 1)
        return out


def read_record(data):
    cbor = Cbor(data)
    record = cbor.item()
    need(cbor.at == len(data), "a record with bytes after its end")
    need(isinstance(record, dict) and
         set(record) == {"kind", "name", "version", "req", "opt"}, "a record with other keys")
    for key in "kind", "name":
        need(isinstance(record[key], str) and 1 <= len(record[key].encode()) <= 31,
             f"a record without a proper {key}")
    need(is_int(record["version"], 1, 65535), "a record without a proper version")
    need(isinstance(record["req"], dict) and isinstance(record["opt"], dict),
         "a record without its two maps")
    return record


# ---- The manifest -----------------------------------------------------------------------------

def is_int(v, low, high):
    return isinstance(v, int) and not isinstance(v, bool) and low <= v <= high


def u(bits):
    return lambda v: is_int(v, 0, (1 << bits) - 1)


def time(v):
    return is_int(v, -1 << 63, (1 << 63) - 1)


def boolean(v):
    return isinstance(v, bool)


def text(most):
    return lambda v: isinstance(v, str) and len(v.encode()) <= most


def octets(low, high):
    return lambda v: isinstance(v, bytes) and low <= len(v) <= high


def array_of(most, fields):
    return lambda v: (isinstance(v, list) and len(v) <= most and
                      all(isinstance(x, dict) and set(x) == set(fields) and
                          all(check(x[key]) for key, check in fields.items()) for x in v))


FIELDS = {
    "format": u(32), "generation": u(32), "draft": boolean, "writer": text(63), "name": text(63),
    "id": octets(16, 16), "delta": boolean, "parent": octets(16, 16),
    "parent_path": octets(0, 4096), "host_wall_ns": time, "guest_ns": time,
    "guest_wall_ns": time, "tsc_khz": u(32), "insn_ps": u(32), "virtual_clock": boolean,
    "cpu_model": text(63), "cpus": lambda v: is_int(v, 1, 4096),
    "cpuid": array_of(128, {k: u(32) for k in ("leaf", "sub", "eax", "ebx", "ecx", "edx")}),
    "regions": array_of(2, {"gpa": u(64), "size": u(64)}),
    "config": array_of(512, {"key": text(127), "value": octets(0, 65536)}),
    "disks": array_of(64, {"device": text(31), "size": u(64), "digest": octets(32, 32)}),
}


def read_manifest(record):
    need(record["kind"] == "manifest" and record["name"] == "manifest",
         "the first record is no manifest")
    m = record["req"]
    need(m.get("format") == 1, f"container version {m.get('format')!r}; this program knows 1")
    need(record["version"] == 1, f"version {record['version']} of the manifest")
    need(set(m) == set(FIELDS), "manifest: other fields: " +
         ", ".join(sorted(set(m) ^ set(FIELDS))))
    for key, check in FIELDS.items():
        need(check(m[key]), f"manifest: {key} is out of range or of another type")
    need(octets(0, 524288)(record["opt"].get("written", b"")), "manifest: written is no byte string")
    size, base, most = [r["size"] for r in m["regions"]], (0, HIGH_BASE), (LOW_MAX, SIZE_MAX)
    need(size and all(r["gpa"] == base[i] and 0 < r["size"] <= most[i] and not r["size"] % PAGE
                      for i, r in enumerate(m["regions"])) and sum(size) <= SIZE_MAX and
         (len(size) == 1 or size[0] == LOW_MAX), "manifest: regions that are not possible")
    need(m["delta"] == any(m["parent"]) and (m["delta"] or not m["parent_path"]) and
         0 not in m["parent_path"], "manifest: its parent contradicts itself")
    keys = [c["key"] for c in m["config"]]
    need(len(set(keys)) == len(keys), "manifest: a setting is there twice")
    need(not any(0 in c["value"] for c in m["config"]), "manifest: a setting that is no text")
    return m


# ---- The file ---------------------------------------------------------------------------------

def round_up(n, to):
    return -(-n // to) * to


class Snapshot:
    """One file, but for the bytes of RAM."""

    def __init__(self, path):
        self.path, self.parent = path, None
        st = os.stat(path)
        need(stat.S_ISREG(st.st_mode), "is not a regular file")
        self.file = open(path, "rb", buffering=0)
        self.size = os.fstat(self.file.fileno()).st_size
        self.read_headers()
        self.read_notes()
        self.manifest = read_manifest(self.records[0])
        self.check_places()

    def pread(self, n, offset):
        data = b""
        while len(data) < n:
            more = os.pread(self.file.fileno(), n - len(data), offset + len(data))
            need(more, f"ends at byte {offset + len(data)}")
            data += more
        return data

    def read_headers(self):
        need(self.size >= 64 + 56, "too short for a snapshot")
        eh = self.pread(64, 0)
        self.phnum = struct.unpack_from("<H", eh, 56)[0]
        need(eh[:4] == b"\x7fELF" and 1 <= self.phnum <= 3, "no snapshot of skep")
        self.headers = self.pread(64 + 56 * self.phnum, 0)
        kind, = struct.unpack_from("<I", self.headers, 64)
        self.notes_at, = struct.unpack_from("<Q", self.headers, 72)
        self.notes_len, = struct.unpack_from("<Q", self.headers, 96)
        need(kind == 4, "the first program header is not of notes")
        need(self.notes_at + self.notes_len == self.size, "the notes do not end with the file")
        need(self.notes_len <= NOTES_MAX, "more notes than are allowed")

    def read_notes(self):
        notes = self.pread(self.notes_len, self.notes_at)
        need(len(notes) > 240, "too few notes for a snapshot")
        self.digest = xxh3_128(self.headers + notes[:-16])
        need(self.digest == notes[-16:], "the digest is not that of the end mark: it is damaged")
        self.cpus, self.records, at, last, names = 0, [], 0, 0, set()
        while at < len(notes):
            need(len(notes) - at >= 12, "half a note")
            name_len, size, kind = struct.unpack_from("<III", notes, at)
            begin = at + 12 + round_up(name_len, 4)
            after = begin + round_up(size, 4)
            need(after <= len(notes), "a note that reaches beyond the segment")
            name = notes[at + 12:at + 12 + name_len]
            need(name and name.index(b"\0") == len(name) - 1 if b"\0" in name else False,
                 "a note whose name is no string")
            at = after
            if name != b"SKEP\0":
                need(not last, "a note of others among those of skep")
                self.cpus += name == b"CORE\0" and kind == 1
                continue
            need(kind in TYPE_NAMES, f"a note of the unknown type {kind:#x}")
            need(kind == MANIFEST if not last else
                 kind in (RECORD, CHECKSUMS, PAGES) if last in (MANIFEST, RECORD) else
                 kind == END and last in (CHECKSUMS, PAGES),
                 f"the note {TYPE_NAMES[kind]} where it does not belong")
            last = kind
            if kind in (MANIFEST, RECORD):
                record = read_record(memoryview(notes)[begin:begin + size])
                need(record["name"] not in names, f"two records {record['name']!r}")
                names.add(record["name"])
                self.records.append(record)
            elif kind != END:
                self.table_kind, self.table = kind, notes[begin:begin + size]
            else:
                need(size == 16 and at == len(notes), "an END note that is not the end")
        need(last == END, "no END note")

    def check_places(self):
        m = self.manifest
        self.regions = [(r["gpa"], r["size"]) for r in m["regions"]]
        plain = self.table_kind == CHECKSUMS
        need(not (plain and m["delta"]), "a delta without a page table")
        offset, self.chunks = CHUNK, []
        self.offsets = []
        for gpa, size in self.regions:
            offset = round_up(offset, CHUNK)
            self.offsets.append(offset)
            self.chunks += [(gpa + at, offset + at, min(CHUNK, size - at))
                            for at in range(0, size, CHUNK)]
            offset += size
        if plain:
            need(len(self.table) == 8 * len(self.chunks), "not one checksum for each chunk")
            self.checksums = _u(self.table, "Q")
            self.runs = []
        else:
            self.checksums = None
            offset = self.read_runs()
        need(self.notes_at == round_up(offset, PAGE), "notes that do not begin where RAM ends")
        need(self.headers == self.expected_headers(plain), "headers that do not fit the manifest")

    def expected_headers(self, plain):
        loads = zip(self.offsets, self.regions) if plain else ()
        out = b"\x7fELF\2\1\1" + bytes(9)
        out += struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56,
                           1 + (len(self.regions) if plain else 0), 0, 0, 0)
        out += struct.pack("<IIQQQQQQ", 4, 0, self.notes_at, 0, 0, self.notes_len,
                           self.notes_len, 4)
        for offset, (gpa, size) in loads:
            out += struct.pack("<IIQQQQQQ", 1, 7, offset, gpa, gpa, size, size, CHUNK)
        return out

    def read_runs(self):
        need(len(self.table) % 48 == 0, "a page table that is not made of runs")
        self.runs, after, end = [], 0, PAGE
        for i, run in enumerate(struct.iter_unpack("<QQQQIIQ", self.table)):
            gpa, size, offset, stored, encoding, reserved, checksum = run
            what = f"page table: run {i} at {gpa:#x}"
            need(not reserved, f"{what}: reserved is not 0")
            need(size and not size % PAGE and not gpa % PAGE, f"{what}: not made of pages")
            need(gpa >= after, f"{what}: not after the one before")
            inside = [b for b, n in self.regions if b <= gpa and gpa + size <= b + n]
            need(inside, f"{what}: outside RAM")
            need((gpa - inside[0]) // CHUNK == (gpa + size - 1 - inside[0]) // CHUNK,
                 f"{what}: in two chunks")
            after = gpa + size
            if encoding == ZERO:
                need(not (offset or stored or checksum), f"{what}: zero, and yet stored")
                need(self.manifest["delta"], f"{what}: zero, and no delta")
            else:
                need(encoding in (RAW, ZSTD), f"{what}: unknown encoding {encoding}")
                need(stored == size and not offset % PAGE if encoding == RAW
                     else 0 < stored < size, f"{what}: stored in a way that is not possible")
                need(end <= offset and offset + stored <= self.notes_at,
                     f"{what}: stored where it does not belong")
                end = offset + stored
            self.runs.append((gpa, size, offset, stored, encoding, checksum))
        return end


# ---- RAM --------------------------------------------------------------------------------------

ZSTD_PROGRAM = shutil.which("zstd")


def zstd_content_size(frame):
    """What the frame's header says, or None (RFC 8878, 3.1.1.1)."""
    if len(frame) < 6 or frame[:4] != b"\x28\xb5\x2f\xfd":
        return None
    descriptor = frame[4]
    single, flag = descriptor >> 5 & 1, descriptor >> 6
    if descriptor & 3 or (not flag and not single):     # a dictionary, or no size
        return None
    size = (1, 2, 4, 8)[flag]
    begin = 5 + (not single)
    return int.from_bytes(frame[begin:begin + size], "little") + (256 if flag == 1 else 0)


def pread(fd, n, offset):
    data = os.pread(fd, n, offset)
    while len(data) < n:
        more = os.pread(fd, n - len(data), offset + len(data))
        if not more:
            return None
        data += more
    return data


def check_piece(job):
    """One chunk or run: None, "skipped", or what is wrong.  In a process of its own."""
    path, offset, stored, size, encoding, checksum, plain = job
    fd = check_piece.open.get(path)
    if fd is None:
        fd = check_piece.open[path] = os.open(path, os.O_RDONLY)
    if plain and not checksum:
        try:
            if os.lseek(fd, offset, os.SEEK_DATA) >= offset + size:
                return None
        except OSError as e:
            if e.errno == errno.ENXIO:
                return None
    data = pread(fd, stored, offset)
    if data is None:
        return "the file ends before it"
    if plain and not checksum:
        return None if data == bytes(size) else "it is not zero"
    if encoding == ZSTD:
        if zstd_content_size(data) != size:
            return "its frame is not of its size"
        if not ZSTD_PROGRAM:
            return "skipped"
        p = subprocess.run([ZSTD_PROGRAM, "-dc", "--no-progress", "-q"], input=data,
                           capture_output=True)
        if p.returncode or len(p.stdout) != size:
            return "it cannot be unpacked"
        data = p.stdout
    got = xxh3_64(data)
    if plain and not got:
        got = 1
    return None if got == checksum else "its checksum is another"


check_piece.open = {}


def ram_jobs(s):
    if s.checksums:
        return [((s.path, offset, size, size, RAW, s.checksums[i], True), gpa, size)
                for i, (gpa, offset, size) in enumerate(s.chunks)]
    return [((s.path, offset, stored, size, encoding, checksum, False), gpa, size)
            for gpa, size, offset, stored, encoding, checksum in s.runs if encoding != ZERO]


def check_ram(snapshots):
    """Bytes verified and bytes skipped, of all files."""
    jobs = [(s, *job) for s in snapshots for job in ram_jobs(s)]
    done = skipped = 0
    pool = multiprocessing.Pool() if len(jobs) > 16 else None
    results = (pool.imap(check_piece, (j[1] for j in jobs), 8) if pool
               else map(check_piece, (j[1] for j in jobs)))
    try:
        for (s, _, gpa, size), wrong in zip(jobs, results):
            if wrong == "skipped":
                skipped += size
                continue
            need(not wrong, f"{s.path}: RAM at {gpa:#x} ({size >> 10} KiB) is damaged: {wrong}")
            done += size
    finally:
        if pool:
            pool.terminate()
    return done, skipped


# ---- The chain --------------------------------------------------------------------------------

def open_one(path):
    try:
        return Snapshot(path)
    except (Bad, OSError) as e:
        why = e.strerror if isinstance(e, OSError) else e
        raise Bad(f"{path}: {why}") from None


def places(s):
    path = os.fsdecode(s.manifest["parent_path"])
    here = os.path.dirname(s.path)
    if path:
        yield os.path.join(here, path)
        if os.path.basename(path):
            yield os.path.join(here, os.path.basename(path))


def open_chain(path):
    chain = [open_one(path)]
    while chain[-1].manifest["delta"]:
        s = chain[-1]
        wanted = s.manifest["parent"]
        need(wanted not in [c.digest for c in chain], f"{path}: it is its own parent")
        need(len(chain) < CHAIN_MAX, f"{path}: more than {CHAIN_MAX} files in its chain")
        tried = []
        for place in places(s):
            try:
                parent = open_one(place)
                if parent.digest == wanted:
                    break
                tried.append(f"{place}: another snapshot")
            except Bad as e:
                tried.append(str(e))
        else:
            raise Bad(f"{s.path}: its parent is missing" + "".join(f"; {t}" for t in tried))
        same = ("regions", "cpus", "cpu_model")
        need(all(parent.manifest[k] == s.manifest[k] for k in same),
             f"{s.path}: its parent {parent.path} is of another machine")
        s.parent = parent
        chain.append(parent)
    return chain


# ---- Telling ----------------------------------------------------------------------------------

def summary(s):
    m = s.manifest
    kind = "plain" if s.checksums else "delta" if m["delta"] else "compressed"
    stored = ([size for (_, _, size), c in zip(s.chunks, s.checksums) if c] if s.checksums
              else [r[1] for r in s.runs])
    return {
        "path": s.path, "kind": kind, "bytes": s.size, "digest": s.digest.hex(),
        "id": m["id"].hex(), "writer": m["writer"], "name": m["name"],
        "generation": m["generation"], "draft": m["draft"], "cpus": m["cpus"],
        "cpu_model": m["cpu_model"], "guest_ns": m["guest_ns"],
        "regions": [{"gpa": gpa, "size": size} for gpa, size in s.regions],
        "threads": s.cpus, "runs": None if s.checksums else len(s.runs),
        "ram_told": sum(stored),
        "records": [{"kind": r["kind"], "name": r["name"], "version": r["version"]}
                    for r in s.records],
        "config": {c["key"]: c["value"].decode(errors="replace") for c in m["config"]},
        "parent": m["parent"].hex() if m["delta"] else None,
    }


def tell(result):
    for f in result["files"]:
        mib = sum(r["size"] for r in f["regions"]) >> 20
        print(f"{f['path']}: {f['kind']}, {f['bytes']} bytes, digest {f['digest']}")
        print(f"  {f['name']!r}, {f['cpus']} x {f['cpu_model']}, {mib} MiB of RAM, of which "
              f"{f['ram_told'] >> 10} KiB are told here")
        print(f"  written by {f['writer']}, generation {f['generation']}"
              f"{' (draft)' if f['draft'] else ''}, {len(f['records'])} records")
    if result["ram"] is not None:
        print(f"RAM: {result['ram']['verified'] >> 10} KiB verified")
        if result["ram"]["skipped"]:
            print(f"RAM: {result['ram']['skipped'] >> 10} KiB NOT verified: they are compressed, "
                  "and there is no zstd program here")
    print("sound")


def main():
    p = argparse.ArgumentParser(description="Verifies a snapshot of skep, by its format alone.")
    p.add_argument("file")
    p.add_argument("--json", action="store_true", help="tell it to a program")
    p.add_argument("--no-ram", action="store_true", help="headers, notes and tables only")
    p.add_argument("--alone", action="store_true", help="do not look for the parents of a delta")
    a = p.parse_args()
    result = {"sound": False, "error": None, "files": [], "ram": None}
    try:
        chain = [open_one(a.file)] if a.alone else open_chain(a.file)
        result["files"] = [summary(s) for s in chain]
        if not a.no_ram:
            done, skipped = check_ram(chain)
            result["ram"] = {"verified": done, "skipped": skipped}
        result["sound"] = True
    except Bad as e:
        result["error"] = str(e)
    if a.json:
        json.dump(result, sys.stdout, indent=2)
        print()
    elif result["sound"]:
        tell(result)
    else:
        print(f"verify-snapshot: {result['error']}", file=sys.stderr)
    return 0 if result["sound"] else 1


if __name__ == "__main__":
    sys.exit(main())
