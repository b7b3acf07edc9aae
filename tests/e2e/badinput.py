"""Bad input gets a sentence and exit code 4, at once."""
import os
import struct

from lib import ERROR, command, freestanding, initrd, kernel, run, scratch


def refused(args, *words):
    """skep run ARGS ends with 4 and one sentence that holds each of the words."""
    code, out = command("run", "-c", "1", "-s", "0,hostbridge", "-s", "31,lpc", *args, "bad",
                        timeout=30)
    assert code == ERROR, f"exit code {code} where {ERROR} was due: {out!r}"
    lines = [line for line in out.splitlines() if line]
    assert lines and len(lines) <= 3 and len(lines[-1].split()) >= 4, f"not a sentence: {out!r}"
    for word in words:
        assert word.lower() in out.lower(), f"{word!r} is not in {out!r}"


def boots(path, *words, ram="512M", more=()):
    refused(["-m", ram, "-l", "com1,/dev/null", "--kernel", path, *more], *words)


def changed(source, name, change):
    """A copy of a file with some bytes changed; its path."""
    with open(source, "rb") as f:
        data = bytearray(f.read())
    data = change(data) or data
    path = os.path.join(scratch(), name)
    with open(path, "wb") as f:
        f.write(data)
    return path


def put(offset, fmt, value):
    def change(data):
        struct.pack_into(fmt, data, offset, value)
    return change


def missing_kernel():
    boots(os.path.join(scratch(), "nowhere"), "nowhere")


def directory_as_kernel():
    boots(scratch())


def empty_kernel():
    boots(changed("/dev/null", "empty", lambda d: d), "empty")


def text_as_kernel():
    boots(changed("/dev/null", "text", lambda d: bytearray(b"hello, world\n" * 1000)), "text")


def bzimage_cut_in_its_header():
    boots(changed(kernel("cloud"), "cut-header", lambda d: d[:0x230]), "cut-header")


def bzimage_cut_in_its_setup():
    boots(changed(kernel("cloud"), "cut-setup", lambda d: d[:0x1000]), "cut-setup")


def bzimage_cut_in_half():
    boots(changed(kernel("cloud"), "cut-half", lambda d: d[:len(d) // 2]), "cut-half")


def bzimage_with_much_setup():
    # setup_sects beyond the end of a file of 16 KiB.
    def change(d):
        d[0x1f1] = 255
        return d[:16384]
    boots(changed(kernel("cloud"), "setup-sects", change), "setup-sects")


def bzimage_of_an_old_protocol():
    boots(changed(kernel("cloud"), "old-protocol", put(0x206, "<H", 0x0200)), "old-protocol")


def bzimage_without_a_64_bit_entry():
    boots(changed(kernel("cloud"), "no-64", put(0x236, "<H", 0)), "64")


def bzimage_wanting_too_much():
    boots(changed(kernel("cloud"), "huge-init", put(0x260, "<I", 0xfffff000)), "memory")


def bzimage_without_its_magic():
    boots(changed(kernel("cloud"), "no-magic", put(0x202, "<I", 0)), "no-magic")


def kernel_in_too_little_ram():
    boots(kernel("cloud"), "memory", ram="16M")


def missing_initrd():
    boots(kernel("cloud"), "no-such-initrd",
          more=["--initrd", os.path.join(scratch(), "no-such-initrd")])


def initrd_larger_than_ram():
    path = os.path.join(scratch(), "big-initrd")
    with open(path, "wb") as f:
        f.truncate(2 << 30)
    boots(kernel("cloud"), "big-initrd", more=["--initrd", path])


def empty_initrd():
    path = changed("/dev/null", "empty-initrd", lambda d: d)
    boots(kernel("cloud"), "empty-initrd", more=["--initrd", path])


def corrupt_initrd():
    # Not a cpio archive in any of the compressions that Linux knows.
    path = changed("/dev/null", "corrupt-initrd", lambda d: bytearray(b"\x13\x37" * 5000))
    boots(kernel("cloud"), "corrupt-initrd", more=["--initrd", path])


def truncated_initrd():
    path = changed(initrd("cloud"), "cut-initrd", lambda d: d[:len(d) // 2])
    boots(kernel("cloud"), "cut-initrd", more=["--initrd", path])


def command_line_too_long():
    boots(kernel("cloud"), "command line", more=["--append", "x" * 5000])


def elf(name, change):
    boots(changed(freestanding("exit"), name, change), name)


def elf_cut_in_its_header():
    elf("elf-cut-header", lambda d: d[:40])


def elf_cut_in_its_segments():
    elf("elf-cut", lambda d: d[:0x60])


def elf_of_another_machine():
    elf("elf-arm", put(18, "<H", 40))


def elf_with_headers_far_away():
    elf("elf-phoff", put(28, "<I", 0x7fffffff))


def elf_with_headers_of_no_size():
    elf("elf-phentsize", put(42, "<H", 1))


def elf_with_many_headers():
    elf("elf-phnum", put(44, "<H", 0xffff))


def program_header(field, value):
    def change(d):
        phoff = struct.unpack_from("<I", d, 28)[0]
        struct.pack_into("<I", d, phoff + field, value)
    return change


def elf_segment_outside_ram():
    elf("elf-paddr", program_header(12, 0xf0000000))


def elf_segment_outside_the_file():
    elf("elf-offset", program_header(4, 0x7fffffff))


def elf_segment_larger_in_file_than_in_memory():
    def change(d):
        program_header(20, 1)(d)
    elf("elf-filesz", change)


def elf_segment_that_wraps():
    elf("elf-wrap", program_header(20, 0xffffffff))


def elf_that_no_loader_takes():
    def change(d):
        i = d.index(struct.pack("<I", 0x1badb002))
        d[i:i + 4] = b"\0\0\0\0"
    elf("elf-no-header", change)


def console_path_unwritable():
    refused(["-m", "64M", "-l", "com1,/nonexistent/console", "--kernel", freestanding("exit")],
            "/nonexistent/console")


def console_path_a_directory():
    refused(["-m", "64M", "-l", f"com1,{scratch()}", "--kernel", freestanding("exit")], scratch())


def ram_of_nonsense():
    refused(["-m", "lots", "--kernel", freestanding("exit")], "memory.size", "lots")


def ram_of_nothing():
    refused(["-m", "0", "--kernel", freestanding("exit")], "memory.size")


def unknown_key():
    refused(["-m", "64M", "-o", "memory.sise=1G", "--kernel", freestanding("exit")], "memory.size")


def nothing_to_boot():
    refused(["-m", "64M"], "kernel")


def config_file_missing():
    refused(["-k", "/nonexistent/vm.conf"], "/nonexistent/vm.conf")


run(*[f for name, f in list(globals().items())
      if callable(f) and getattr(f, "__module__", "") == "__main__"
      and f.__code__.co_argcount == 0])
