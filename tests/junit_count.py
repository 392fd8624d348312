#!/usr/bin/python3
"""Prints how many tests of a JUnit report passed and how many did not (skipped ones are neither)."""
import sys
import xml.etree.ElementTree as tree

good = bad = 0
for suite in tree.parse(sys.argv[1]).getroot().iter("testsuite"):
    count = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    wrong = count["failures"] + count["errors"]
    good += max(0, count["tests"] - wrong - count["skipped"])
    bad += wrong
print(good, bad)
