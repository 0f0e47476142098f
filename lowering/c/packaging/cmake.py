"""A CMake project: a static library to be added as a subdirectory or installed, with its test and an example."""

from __future__ import annotations

from . import Package

LISTS = """\
cmake_minimum_required(VERSION 3.16)
project({{ prefix }} LANGUAGES C)

add_library({{ prefix }} STATIC{% for name in sources %} src/{{ name }}{% endfor %})
add_library(edgesmith::{{ prefix }} ALIAS {{ prefix }})
target_include_directories({{ prefix }} PUBLIC
    $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/src> $<INSTALL_INTERFACE:include>)
target_compile_features({{ prefix }} PUBLIC c_std_99)
target_compile_options({{ prefix }} PRIVATE
    $<$<C_COMPILER_ID:GNU,Clang,AppleClang>:{{ flags.replace(" ", ";") }}>)

install(TARGETS {{ prefix }} ARCHIVE DESTINATION lib)
install(FILES src/{{ prefix }}.h DESTINATION include)

if(CMAKE_PROJECT_NAME STREQUAL PROJECT_NAME)
    enable_testing()
    add_executable({{ prefix }}_selftest test/selftest.c test/harness.c)
    target_link_libraries({{ prefix }}_selftest PRIVATE {{ prefix }})
    add_test(NAME {{ prefix }}_selftest COMMAND {{ prefix }}_selftest)
    add_executable({{ prefix }}_example example/main.c)
    target_link_libraries({{ prefix }}_example PRIVATE {{ prefix }})
endif()
"""

MAIN = """\
/* One inference of {{ prefix }}. */
#include <stdio.h>
{{ before }}

int main(void)
{
{{ inference }}
    printf("%d\\n", best);
    return 0;
}
"""

PACKAGE = Package({"CMakeLists.txt": LISTS, "example/main.c": MAIN})
