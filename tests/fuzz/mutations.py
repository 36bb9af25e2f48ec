"""Changes to files, decided by a generator of random numbers: of bytes, and of what a format is made of."""

import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutation = Callable[[Random, bytes], bytes]

# What a field may hold instead: another type, absurd sizes, what is no number, names that lead elsewhere.
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 255, 65536, 2**31 - 1, 2**31, 2**53, 2**63, 2**64, 10**30, 10**400, -(2**63),
    0.5, -0.0, 1e-320, 1e38, 1e308, float("nan"), float("inf"), float("-inf"),
    "", " ", "0", "nan", "x" * 5000, "a\0b", "\x1b[31mred\x1b[0m", "\ud800", "../../outside", "/", "/dev/zero",
    "file:///etc/passwd", "http://127.0.0.1:9/x", "s3://nowhere/x", "{0}", "%s", "[bold]x[/]", "é\u202e\n\r\t",
    [], {}, [[]], [None], [0] * 2000, {"": 0}, {"a": {"b": []}}, [1, "a", None],
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
TEXT = (b"0", b"-1", b"1e999", b"NaN", b"null", b"[", b"{", b"}", b'"', b"\\ud800", b"\0", b"\xff\xfe", b"\n", b"\xe9")


def mutate(random: Random, data: bytes, structured: Sequence[Mutation]) -> bytes:
    """One to three changes, more often of the format's own parts than of bytes, if it has a mutation for them."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        mutation = random.choice(structured) if structured and random.random() < 0.75 else changed_bytes
        data = mutation(random, data)
    return data


def changed_bytes(random: Random, data: bytes) -> bytes:
    """Bits, bytes and words changed; pieces cut off, cut out, doubled, exchanged or put in."""
    if not data:
        return random.randbytes(random.randrange(1, 40))
    at, size = random.randrange(len(data)), random.choice((1, 1, 2, 4, 8, 64, 1000))
    piece, rest = data[at : at + size], data[at + size :]
    kind = random.randrange(9)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + rest
    if kind == 2:
        return data[:at] + piece + data[at:]
    if kind == 3:
        other = random.randrange(len(data))
        return data[:at] + data[other : other + size] + rest
    if kind == 4:
        return data[:at] + random.choice(TEXT) + data[at:]
    if kind == 5:
        width = random.choice((1, 2, 4, 8))
        word = (random.choice(NUMBERS) % 256**width).to_bytes(width, random.choice(("little", "big")))
        return data[:at] + word + data[at + width :]
    if kind == 6:
        return data[:at] + random.choice((b"\0", b"\xff")) * len(piece) + rest
    if kind == 7:
        return data[:at] + random.randbytes(len(piece)) + rest
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def changed_tree(random: Random, tree: Any) -> Any:
    """JSON with one place changed: another value, one from elsewhere in it, a name more, less or other."""
    places = list(_places(tree))
    if not places:
        return random.choice(ODD)
    holder, name = random.choice(places)
    kind = random.randrange(8)
    if kind == 0:
        del holder[name]
    elif kind == 1:
        elsewhere, other = random.choice(places)
        holder[name] = json.loads(json.dumps(elsewhere[other]))
    elif kind == 2 and isinstance(holder, dict):
        holder[random.choice(("", "x", "\ud800", "../x", str(name).upper(), "__proto__"))] = holder.pop(name)
    elif kind == 3 and isinstance(holder[name], int | float) and not isinstance(holder[name], bool):
        holder[name] = random.choice((-holder[name], holder[name] + 1, holder[name] * 10**6, holder[name] * 0.5))
    elif kind == 4 and isinstance(holder[name], str) and holder[name]:
        text = holder[name]
        at = random.randrange(len(text))
        holder[name] = random.choice((text[:at], text + text[at:], text[:at] + "\0" + text[at:], "../" * 3 + text))
    elif kind == 5 and isinstance(holder[name], list):
        holder[name] = random.choice((holder[name] * 3, holder[name][:-1], holder[name][::-1]))
    elif kind == 6:
        for _ in range(random.choice((3, 2000))):  # deep
            holder[name] = [holder[name]]
    else:
        holder[name] = random.choice(ODD)
    return tree


def _places(tree: Any) -> Any:
    names = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for name in names:
        yield tree, name
        yield from _places(tree[name])


def changed_json(random: Random, data: bytes) -> bytes:
    """A JSON file with a place changed; one that is no JSON any more as bytes."""
    try:
        return _written(changed_tree(random, json.loads(data)))
    except (ValueError, RecursionError):
        return changed_bytes(random, data)


def _written(tree: Any) -> bytes:
    try:
        return json.dumps(tree).encode()
    except RecursionError:  # a deep list, which no writer of ours can write
        return b"[" * 100_000 + b"]" * 100_000


def changed_lines(random: Random, data: bytes) -> bytes:
    """Lines of JSON: one of them changed, lost, doubled, torn, or moved."""
    lines = data.splitlines(keepends=True)
    if not lines:
        return changed_bytes(random, data)
    at = random.randrange(len(lines))
    kind = random.randrange(8)
    if kind == 0:
        lines.pop(at)
    elif kind == 1:
        lines.insert(random.randrange(len(lines)), lines[at])
    elif kind == 2:
        lines[at] = lines[at][: random.randrange(len(lines[at]))]
    elif kind == 3:
        lines.insert(at, b"\n")
    else:
        lines[at] = changed_json(random, lines[at]).rstrip(b"\n") + b"\n"
    return b"".join(lines)


def changed_yaml(random: Random, data: bytes) -> bytes:
    """A configuration with a line changed, lost, doubled or moved deeper, another value, or aliases of aliases."""
    lines = data.decode(errors="replace").split("\n")
    at = random.randrange(len(lines))
    kind = random.randrange(8)
    if kind == 0:
        lines.pop(at)
    elif kind == 1:
        lines.insert(random.randrange(len(lines)), lines[at])
    elif kind == 2:
        lines[at] = " " * random.choice((1, 2, 4)) + lines[at]
    elif kind == 3:
        depth, width = random.choice(((3, 3), (6, 9), (9, 9), (30, 2)))
        inside = "x"
        for level in range(depth):
            lines.insert(level, f"a{level}: &a{level} [{', '.join([inside] * width)}]")
            inside = f"*a{level}"
    elif kind == 4:
        values = ("[" * 3000, "{a: " * 500, "!!python/object:os.system x", "&a [*a]", "1" * 9000)
        lines[at] = f"a: {random.choice(values)}"
    else:
        name = lines[at].partition(":")[0]
        value = random.choice(ODD)
        lines[at] = f"{name}: {json.dumps(value)}" if random.random() < 0.7 else f"{name}: {value}"
    return "\n".join(lines).encode(errors="surrogatepass")


def changed_png(random: Random, data: bytes) -> bytes:
    """Chunks of a PNG changed, lost, doubled or exchanged, with checksums that are right again; or another size."""
    chunks = []
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return changed_bytes(random, data)
    at = random.randrange(len(chunks))
    kind = random.randrange(6)
    if kind == 0 and chunks[0][0] == b"IHDR" and len(chunks[0][1]) == 13:
        size = struct.pack(">II", random.choice(NUMBERS[1:]) % 2**32, random.choice(NUMBERS[1:]) % 2**32)
        rest = bytearray(chunks[0][1][8:])
        rest[random.randrange(5)] = random.randrange(20)
        chunks[0] = (b"IHDR", random.choice((size + chunks[0][1][8:], chunks[0][1][:8] + bytes(rest))))
    elif kind == 1:
        chunks.pop(at)
    elif kind == 2:
        chunks.insert(random.randrange(len(chunks)), chunks[at])
    elif kind == 3:
        name = random.choice((b"tRNS", b"iCCP", b"zTXt", b"iTXt", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"PLTE"))
        bomb = b"a\0\0" + zlib.compress(bytes(random.choice((10, 10, 10, 50_000_000))))
        chunks.insert(1, (name, random.choice((bomb, random.randbytes(26), b""))))
    else:
        chunks[at] = (chunks[at][0], changed_bytes(random, chunks[at][1]))
    framed = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return data[:8] + b"".join(framed)


def changed_boxes(random: Random, data: bytes) -> bytes:
    """Boxes of an MP4 changed, lost, doubled or exchanged."""
    boxes, at = [], 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length < 8:
            break
        boxes.append(data[at : at + length])
        at += length
    if not boxes:
        return changed_bytes(random, data)
    at = random.randrange(len(boxes))
    kind = random.randrange(5)
    if kind == 0:
        boxes.pop(at)
    elif kind == 1:
        boxes.insert(random.randrange(len(boxes)), boxes[at])
    elif kind == 2 and boxes[at][4:8] in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"):
        inside = changed_boxes(random, boxes[at][8:])
        boxes[at] = struct.pack(">I", len(inside) + 8) + boxes[at][4:8] + inside
    else:
        boxes[at] = boxes[at][:8] + changed_bytes(random, boxes[at][8:])
    return b"".join(boxes)


def changed_glb(random: Random, data: bytes) -> bytes:
    """The JSON of a GLB changed, or its numbers, with lengths that are right again."""
    length = int.from_bytes(data[12:16], "little")
    text, rest = data[20 : 20 + length], data[20 + length :]
    if random.random() < 0.8:
        text = changed_json(random, text)
        text += b" " * (-len(text) % 4)
    else:
        rest = rest[:8] + changed_bytes(random, rest[8:])
    total = struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest))
    return total + struct.pack("<I4s", len(text), b"JSON") + text + rest


def changed_safetensors(random: Random, data: bytes) -> bytes:
    """The header changed, with a length that is right again."""
    length = int.from_bytes(data[:8], "little")
    header = changed_json(random, data[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def changed_zip(random: Random, data: bytes) -> bytes:
    """An archive with a member changed, lost, doubled, renamed, or one more, and a directory that is right again."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError, zlib.error):
        return changed_bytes(random, data)
    if not members:
        return changed_bytes(random, data)
    at = random.randrange(len(members))
    name, body = members[at]
    kind = random.randrange(7)
    if kind == 0:
        members.pop(at)
    elif kind == 1:
        members.append((name, random.choice((body, members[random.randrange(len(members))][1]))))
    elif kind == 2:
        names = ("../x", "/x", "x\\..\\..\\y", "", "a" * 70_000, name.upper(), name + "/")
        members[at] = (random.choice(names), body)
    elif kind == 3:
        size = random.choice((0, 0, 100, 100, 30_000_000))
        members.append((random.choice(("link", name + "x", "runs/x/run.json")), bytes(size)))
    else:
        changed = changed_json if name.endswith(".json") else changed_bytes
        members[at] = (name, changed(random, body))
    written = io.BytesIO()
    warnings.simplefilter("ignore", UserWarning)  # of names that are there twice
    packing = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(written, "w", packing) as archive:
        for name, body in members:
            archive.writestr(zipfile.ZipInfo(name[:60_000]), body, packing)
    return written.getvalue()
