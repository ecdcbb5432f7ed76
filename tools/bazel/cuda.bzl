"""Rules for CUDA C++: cuda_library compiles .cu files with nvcc, for sm_80, for sm_90a and, as PTX, for other GPUs; for
sm_90a alone with `architectures = ["sm_90a"]`.

    load("//tools/bazel:cuda.bzl", "CUDA_ONLY", "cuda_library")

    cuda_library(
        name = "kernels_cuda",
        srcs = glob(["kernels/*.cu"]),
        hdrs = glob(["kernels/*.cuh"]),
        deps = [":kernels"],
    )

A kernel that spills registers fails to compile here: see nvcc.sh. Without CUDA the targets are incompatible, so that
`bazel test //...` says SKIPPED; other rules that need CUDA take `target_compatible_with = CUDA_ONLY`.

Rejected: rules_cuda (not to be had offline), and a toolchain of our own (the C++ one would have to be described twice).
"""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")
load("@cuda//:defs.bzl", "CUDA_VERSION", "HAVE_CUDA", "HOST_COMPILER", "NVCC")

CUDA_ONLY = [] if HAVE_CUDA else ["//tools/bazel:no_cuda"]

_ARCHITECTURES = {
    "sm_80": "-gencode=arch=compute_80,code=[sm_80,compute_80]",
    "sm_90a": "-gencode=arch=compute_90a,code=sm_90a",
}

_FLAGS = [
    # Conversions of reference/dtype.h are constexpr functions of the host.
    "--expt-relaxed-constexpr",
    # As on the host: what is written as two roundings is two.
    "-fmad=false",
    "-Werror=all-warnings",
    # "ignoring return value" of assignments to a type that is [[nodiscard]].
    "-diag-suppress=2810",
    # fmt 9 takes nvcc for a compiler without constexpr, and then contradicts itself.
    "-DFMT_USE_CONSTEXPR=1",
    "-Xcompiler=-Wall,-fno-math-errno,-ffp-contract=off",
    "-ccbin=" + HOST_COMPILER,
    # What ptxas knows of each kernel, for nvcc.sh.
    "-Xptxas=-v",
]

def _cuda_library_impl(ctx):
    toolchain = find_cpp_toolchain(ctx)
    features = cc_common.configure_features(
        ctx = ctx,
        cc_toolchain = toolchain,
        requested_features = ctx.features,
        unsupported_features = ctx.disabled_features,
    )
    mine = cc_common.create_compilation_context(headers = depset(ctx.files.hdrs))
    merged = cc_common.merge_cc_infos(
        direct_cc_infos = [CcInfo(compilation_context = mine)],
        cc_infos = [dep[CcInfo] for dep in ctx.attr.deps] + [ctx.attr._cudart[CcInfo]],
    )
    context = merged.compilation_context
    objects, logs = [], []
    for source in ctx.files.srcs:
        stem = "%s/%s" % (ctx.label.name, source.basename)
        output = ctx.actions.declare_file(stem + ".o")
        log = ctx.actions.declare_file(stem + ".ptxas")
        arguments = ctx.actions.args()
        arguments.add_all([NVCC, log])
        arguments.add_all(["-std=c++20", "-O3"])
        arguments.add_all([_ARCHITECTURES[name] for name in ctx.attr.architectures])
        arguments.add_all(_FLAGS)
        arguments.add_all(context.defines, before_each = "-D")
        arguments.add("-I.")
        arguments.add_all(context.includes, before_each = "-I")
        arguments.add_all(context.quote_includes, before_each = "-I")
        arguments.add_all(context.system_includes, before_each = "-isystem")
        arguments.add_all(["-c", source, "-o", output])
        ctx.actions.run(
            executable = ctx.executable._nvcc,
            arguments = [arguments],
            inputs = depset([source], transitive = [context.headers]),
            outputs = [output, log],
            # The version is there so that another toolkit at the same place compiles anew.
            env = {"CUDA_VERSION": CUDA_VERSION, "PATH": "/usr/bin:/bin"},
            mnemonic = "CudaCompile",
            progress_message = "Compiling %s with nvcc" % source.short_path,
        )
        objects.append(output)
        logs.append(log)
    linking, _ = cc_common.create_linking_context_from_compilation_outputs(
        actions = ctx.actions,
        name = ctx.label.name,
        feature_configuration = features,
        cc_toolchain = toolchain,
        compilation_outputs = cc_common.create_compilation_outputs(
            objects = depset(objects),
            pic_objects = depset(objects),
        ),
        linking_contexts = [merged.linking_context],
        disallow_dynamic_library = True,
    )
    return [
        DefaultInfo(files = depset(objects)),
        CcInfo(compilation_context = context, linking_context = linking),
        OutputGroupInfo(ptxas = depset(logs)),
    ]

_cuda_library = rule(
    implementation = _cuda_library_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cu"], mandatory = True),
        "hdrs": attr.label_list(allow_files = [".h", ".cuh"]),
        "deps": attr.label_list(providers = [CcInfo]),
        "architectures": attr.string_list(default = ["sm_80", "sm_90a"]),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
        "_cudart": attr.label(default = "@cuda//:cudart"),
        "_nvcc": attr.label(
            default = "//tools/bazel:nvcc.sh",
            allow_single_file = True,
            executable = True,
            cfg = "host",
        ),
    },
    fragments = ["cpp"],
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)

def cuda_library(name, **kwargs):
    """A library of .cu files; to be used in deps like a cc_library.

    Args:
      name: of the library. `name_ptxas` are the reports of ptxas, one file for each source.
      **kwargs: srcs, hdrs, deps, architectures and what every rule has.
    """
    _cuda_library(
        name = name,
        target_compatible_with = CUDA_ONLY,
        **kwargs
    )
    native.filegroup(
        name = name + "_ptxas",
        srcs = [":" + name],
        output_group = "ptxas",
    )
