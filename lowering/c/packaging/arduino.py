"""An Arduino library in the format 1.5: `library.properties`, sources under `src`, sketches under `examples`."""

from __future__ import annotations

from . import Package

# Names of libraries that begin with "arduino" are kept for Arduino's own.
PROPERTIES = """\
name=edgesmith_{{ prefix }}
version=1.0.0
author=edgesmith
maintainer=edgesmith
sentence=The network {{ prefix }} as C without heap or variables.
paragraph=Takes {{ upper }}_ARENA_BYTES bytes of your memory, for one inference at a time.
category=Data Processing
url=https://www.arduino.cc/reference/en/libraries/
architectures=*
includes={{ prefix }}.h
"""

SKETCH = """\
// One inference of {{ prefix }}.
{{ before }}

void setup() { Serial.begin(115200); }

void loop()
{
{{ inference }}
    Serial.println(best);
}
"""

SELFTEST = """\
// Prints whether {{ prefix }} computes here what its reference does.
#include <{{ prefix }}.h>

extern "C" int {{ prefix }}_selftest(void);

void setup()
{
    Serial.begin(115200);
}

void loop()
{
    Serial.println({{ prefix }}_selftest() ? "WRONG" : "PASS");
    delay(1000);
}
"""

PACKAGE = Package(
    {
        "library.properties": PROPERTIES,
        "examples/Example/Example.ino": SKETCH,
        "examples/SelfTest/SelfTest.ino": SELFTEST,
    },
    test="examples/SelfTest",
    main=False,
    folder="edgesmith_{{ prefix }}",
)
