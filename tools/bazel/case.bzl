"""Case folders: one macro that turns every folder with a case.cc into libraries, tests and a benchmark.

A package calls it once, and a new primitive is then a new folder and no edit here or in the package:

    load("//tools/bazel:case.bzl", "case_folders")

    case_folders(
        deps = [":communicator", "//reference"],
        visibility = ["//:users_of_collectives"],
    )

For each folder F with a case.cc it makes

    F              library: F/*.h and F/*.cc but case.cc, case_* and *_test.cc. Usable alone: it does not know the harness.
    F_case         case.cc, which registers the case, and case_*.{h,cc}, where it is long. Linked whole (alwayslink), since
                   nothing refers to it by name. Its headers are for those who look into the parameters of an Instance.
    F_unit_test    F/*_test.cc, if there are any, with GoogleTest's main
    F_test         the case's conformance through GoogleTest, with ranks as threads
    F_mpi_test     the same binary under mpirun, once per number of ranks; a visible skip where there is no MPI
    F_bench        the case's benchmark (Google Benchmark)
    F_bench_smoke  F_bench --smoke as a test

and for the package `libraries` (every F) and `cases` (every F_case).

Rejected: one BUILD per folder (a file more per primitive, and the include rules would have to be repeated in each);
finding `deps` from the includes (a generator to run, or a rule that reads sources).
"""

load("@mpi//:defs.bzl", "HAVE_MPI", "WHY_NOT")

_HARNESS = "//tools/harness"

def case_folders(
        deps = [],
        folder_deps = {},
        case_deps = [],
        test_deps = [],
        tags = {},
        mpi_ranks = {},
        visibility = None):
    """Makes the targets of every case folder of this package.

    Args:
      deps: what the library of every folder may include.
      folder_deps: folder -> further deps of its library, as {"all_reduce": [":reduce_scatter", ":all_gather"]}.
      case_deps: further deps of every case.cc.
      test_deps: further deps of every *_test.cc.
      tags: folder -> tags of its tests: "no_mpi" leaves F_mpi_test out, "no_asan", "no_tsan" and "no_ubsan" leave
        the tests out of a sanitizer.
      mpi_ranks: folder -> the numbers of ranks that its F_mpi_test runs with, one after the other, where it is not 2
        and 3.
      visibility: of the libraries. Cases are for the binary that holds them all.
    """
    folders = [path[:-len("/case.cc")] for path in native.glob(["*/case.cc"])]
    for folder in list(folder_deps) + list(tags) + list(mpi_ranks):
        if folder not in folders:
            fail("case_folders: there is no %s/case.cc; the folders are %s" % (folder, ", ".join(folders)))
    for folder in folders:
        _library(folder, deps + folder_deps.get(folder, []), visibility)
        _case(folder, case_deps)
        _tests(folder, test_deps, tags.get(folder, []), mpi_ranks.get(folder, [2, 3]))
        _bench(folder, tags.get(folder, []))
    native.cc_library(
        name = "libraries",
        visibility = visibility,
        deps = [":" + folder for folder in folders],
    )
    native.cc_library(
        name = "cases",
        visibility = ["//:users_of_cases"],
        deps = [":" + folder + "_case" for folder in folders],
    )

def _library(folder, deps, visibility):
    native.cc_library(
        name = folder,
        srcs = native.glob(
            [folder + "/*.cc"],
            exclude = [folder + "/case.cc", folder + "/case_*.cc", folder + "/*_test.cc"],
        ),
        hdrs = native.glob([folder + "/*.h"], exclude = [folder + "/case_*.h"]),
        visibility = visibility,
        deps = deps,
    )

def _case(folder, case_deps):
    native.cc_library(
        name = folder + "_case",
        srcs = [folder + "/case.cc"] + native.glob([folder + "/case_*.cc"]),
        hdrs = native.glob([folder + "/case_*.h"]),
        alwayslink = True,
        visibility = ["//:users_of_cases"],
        deps = [":" + folder, _HARNESS] + case_deps,
    )

def _tests(folder, test_deps, tags, mpi_ranks):
    unit_tests = native.glob([folder + "/*_test.cc"])
    if unit_tests:
        native.cc_test(
            name = folder + "_unit_test",
            size = "small",
            srcs = unit_tests,
            tags = tags,
            deps = [":" + folder, "//tools/bazel/system:gtest_main"] + test_deps,
        )
    native.cc_test(
        name = folder + "_test",
        size = "medium",
        # The ranks of a case spin while they wait: two tests at a time would slow one another down.
        tags = tags + ["cpu:2"],
        deps = [":" + folder + "_case", _HARNESS + ":test_main"],
    )
    if "no_mpi" not in tags:
        mpi_test(
            name = folder + "_mpi_test",
            binary = ":" + folder + "_test",
            args = ["--backend=mpi"],
            ranks = mpi_ranks,
            tags = tags,
        )

def _bench(folder, tags):
    native.cc_binary(
        name = folder + "_bench",
        tags = ["bench"],
        testonly = True,
        deps = [":" + folder + "_case", _HARNESS + ":bench_main"],
    )
    native.sh_test(
        name = folder + "_bench_smoke",
        size = "small",
        srcs = ["//tools/bazel:smoke_test.sh"],
        args = ["$(location :%s_bench)" % folder, "--smoke"],
        data = [":" + folder + "_bench"],
        tags = tags + ["bench", "cpu:2"],
    )

def mpi_test(name, binary, args = [], ranks = [2, 3], tags = [], size = "medium"):
    """Runs a GoogleTest binary under mpirun as a test; see mpi_test.sh.

    Args:
      name: of the test.
      binary: a cc_test or cc_binary that starts MPI itself.
      args: of the binary.
      ranks: it is run once with each of these numbers of ranks.
      tags: further tags; "mpi" is always there.
      size: of the test.
    """
    native.sh_test(
        name = name,
        size = size,
        srcs = ["//tools/bazel:mpi_test.sh"],
        args = [
            "'%s'" % ("" if HAVE_MPI else "built without MPI: " + WHY_NOT),
            ",".join([str(n) for n in ranks]),
            "$(location %s)" % binary,
        ] + args,
        data = [binary],
        tags = tags + ["cpu:2", "mpi"],
    )
