#!/usr/bin/env python3
"""Makes header_index.h from header_ids.def: a perfect hash over length and three characters.

Run it after a change of header_ids.def: python3 proxy/http/header_index.py (headers.c doesn't compile when it was
forgotten). The search is seeded, so the same names give the same file.
"""
import pathlib
import random
import re

HERE = pathlib.Path(__file__).resolve().parent
SLOTS = 256


def characters(name):
    n = len(name)
    return n, ord(name[n // 4]), ord(name[n // 2]), ord(name[n * 5 // 8])


def main():
    rows = re.findall(r'^X\((\w+), "([^"]+)"\)', (HERE / "header_ids.def").read_text(), re.M)
    keys = [characters(name) for _, name in rows]
    if len(set(keys)) != len(keys):
        raise SystemExit("two names agree in all that is hashed: hash another character")
    rng = random.Random(1)
    while True:
        factors = [rng.randrange(1, 4096) for _ in range(4)]
        slots = [(sum(f * k for f, k in zip(factors, key)) >> 2) % SLOTS for key in keys]
        if len(set(slots)) == len(slots):
            break
    table = [0] * SLOTS
    for i, slot in enumerate(slots):
        table[slot] = i + 1
    lines = [
        "/* Made from header_ids.def by header_index.py: do not edit. Slot of a name's hash to its id. */",
        f"#define HEADER_INDEX_COUNT {len(rows) + 1}",
        f"#define HEADER_INDEX_LENGTH_MAX {max(len(name) for _, name in rows)}",
        "#define HEADER_INDEX_HASH(n, early, middle, late) \\",
        f"    ((((n) * {factors[0]}u + (early) * {factors[1]}u + (middle) * {factors[2]}u + (late) * {factors[3]}u) >> 2) "
        f"% {SLOTS}u)",
        f"static const uint8_t header_index[{SLOTS}] = {{",
    ]
    for i in range(0, SLOTS, 16):
        lines.append("    " + ", ".join(str(x) for x in table[i : i + 16]) + ",")
    lines.append("};")
    (HERE / "header_index.h").write_text("\n".join(lines) + "\n")


main()
