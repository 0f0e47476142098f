"""A bare Makefile: a static library, its self-test and an example, for any compiler that CC names."""

from __future__ import annotations

from . import Package
from .cmake import MAIN

MAKEFILE = """\
# make, make test, make example; for a device: make CC=arm-none-eabi-gcc AR=arm-none-eabi-ar CFLAGS='-O3 -mcpu=...'
CFLAGS ?= -O2
AR ?= ar
NEEDED = -std=c99 {{ flags }} -Isrc
OBJECTS ={% for name in sources %} build/{{ name[:-2] }}.o{% endfor %}


lib{{ prefix }}.a: $(OBJECTS)
	$(AR) rcs $@ $(OBJECTS)

build/%.o: src/%.c $(wildcard src/*.h)
	@mkdir -p build
	$(CC) $(CFLAGS) $(NEEDED) -c $< -o $@

build/selftest: test/selftest.c test/harness.c lib{{ prefix }}.a
	$(CC) $(CFLAGS) $(NEEDED) $^ -o $@

build/example: example/main.c lib{{ prefix }}.a
	$(CC) $(CFLAGS) $(NEEDED) $^ -o $@

test: build/selftest
	./build/selftest

example: build/example

clean:
	rm -rf build lib{{ prefix }}.a

.PHONY: test example clean
"""

PACKAGE = Package({"Makefile": MAKEFILE, "example/main.c": MAIN})
