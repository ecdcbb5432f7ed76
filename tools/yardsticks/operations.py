"""How PyTorch does each Work of counts.py: operands from a seed, the operation to be timed, and a check of its answer.

    operation = make(torch, work, device)
    operation.run()            # queues it once
    operation.check()          # "" or what is wrong, from a few rows in double precision

Not imported where torch is missing; torch is an argument.
"""
import dataclasses
import itertools
import math
import typing


@dataclasses.dataclass
class Operation:
    run: typing.Callable
    check: typing.Callable


class Unsupported(Exception):
    """With the reason in one sentence."""


_ROWS = 4  # That are checked.


_seeds = itertools.count(7)  # Each operand has its own, in the order in which they are made.


def _generator(torch, device):
    return torch.Generator(device=device).manual_seed(next(_seeds))


def _random(torch, device, *shape, dtype=None, grad=False):
    out = torch.randn(*shape, generator=_generator(torch, device), device=device, dtype=torch.float32)
    return out.to(dtype or torch.bfloat16).requires_grad_(grad)


def _wrong(torch, got, want, unit):
    """A sentence where |got - want| > unit (|want| + root mean square of want).

    Sums are rounded in between too (the probabilities of attention, say), so that an element which is nearly 0 is as far off
    as others are. That finds a wrong answer, and is no statement on accuracy.
    """
    got, want = got.detach().double().flatten(), want.detach().double().flatten()
    if not bool(torch.isfinite(got).all()):
        return "the result is not finite"
    bound = unit * (want.abs() + want.square().mean().sqrt())
    excess = ((got - want).abs() - bound).max().item()
    return f"an element is {excess:.3g} off beyond the bound" if excess > 0 else ""


_UNIT = 2**-7  # Of bf16, with as much again for a rounding inside.


def _finite(torch, *tensors):
    for one in tensors:
        if one is None or not bool(torch.isfinite(one).all()):
            return "a gradient is missing or not finite"
    return ""


def _copy(torch, work, device):
    source = torch.randint(0, 255, (work.params["bytes"],), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Operation(
        lambda: target.copy_(source),
        lambda: "" if bool(torch.equal(target, source)) else "the copy differs",
    )


def _product(torch, work, device):
    m, n, k = (work.params[name] for name in "mnk")
    a, b = _random(torch, device, m, k), _random(torch, device, n, k)
    c = torch.empty(m, n, dtype=a.dtype, device=device)

    def check():
        want = a[:_ROWS].double() @ b[:64].double().T
        return _wrong(torch, c[:_ROWS, :64], want, _UNIT)

    return Operation(lambda: torch.mm(a, b.T, out=c), check)


def _attention(torch, work, device):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    p = work.params
    kernel = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}[p["kernel"]]
    backward = p["direction"] == "backward"
    make = lambda heads: _random(torch, device, p["batch"], heads, p["sequence"], p["head_dim"], grad=backward)
    query, key, value = make(p["heads"]), make(p["kv_heads"]), make(p["kv_heads"])
    shared = {"enable_gqa": True} if p["heads"] != p["kv_heads"] else {}

    def forward():
        with sdpa_kernel(kernel):
            return torch.nn.functional.scaled_dot_product_attention(
                query, key, value, is_causal=p["causal"], **shared
            )

    try:
        first = forward()
    except (RuntimeError, TypeError) as error:
        raise Unsupported(f"no {p['kernel']} attention: {str(error).splitlines()[0]}") from error
    upstream = _random(torch, device, *first.shape)

    def check():
        # The last queries of the last head: they see all keys, causal or not but for the last few.
        rows_ = min(_ROWS, p["sequence"])
        scores = query[0, -1, -rows_:].double() @ key[0, -1].double().T / math.sqrt(p["head_dim"])
        if p["causal"]:
            ones = torch.ones(rows_, p["sequence"], dtype=torch.bool, device=device)
            scores = scores.masked_fill(ones.triu(p["sequence"] - rows_ + 1), -math.inf)
        want = scores.softmax(-1) @ value[0, -1].double()
        wrong = _wrong(torch, forward()[0, -1, -rows_:], want, 2 * _UNIT)
        return wrong or (_finite(torch, query.grad, key.grad, value.grad) if backward else "")

    if not backward:
        return Operation(forward, check)

    def run():
        query.grad = key.grad = value.grad = None
        first.backward(upstream, retain_graph=True)

    return Operation(run, check)


def _of_rows(torch, work, device, function, reference):
    """Forward, or the backward pass alone of what was computed once."""
    p = work.params
    backward = p["direction"] == "backward"
    x = _random(torch, device, p["rows"], p["columns"], grad=backward)
    first = function(x)

    def check():
        wrong = _wrong(torch, function(x)[:_ROWS], reference(x[:_ROWS].double()), _UNIT)
        return wrong or (_finite(torch, x.grad) if backward else "")

    if not backward:
        return Operation(lambda: function(x), check)
    upstream = _random(torch, device, *first.shape)

    def run():
        x.grad = None
        first.backward(upstream, retain_graph=True)

    return Operation(run, check)


def _layer_norm(torch, work, device):
    functional = torch.nn.functional
    weight = _random(torch, device, work.params["columns"])
    bias = _random(torch, device, work.params["columns"])
    shape = (work.params["columns"],)
    return _of_rows(
        torch,
        work,
        device,
        lambda x: functional.layer_norm(x, shape, weight, bias),
        lambda x: functional.layer_norm(x, shape, weight.double(), bias.double()),
    )


def _rms_norm(torch, work, device):
    functional = torch.nn.functional
    if not hasattr(functional, "rms_norm"):
        raise Unsupported("rms_norm came with torch 2.4")
    weight = _random(torch, device, work.params["columns"])
    shape = (work.params["columns"],)
    return _of_rows(
        torch,
        work,
        device,
        lambda x: functional.rms_norm(x, shape, weight, 1e-5),
        lambda x: functional.rms_norm(x, shape, weight.double(), 1e-5),
    )


def _softmax(torch, work, device):
    return _of_rows(torch, work, device, lambda x: x.softmax(-1), lambda x: x.softmax(-1))


def _gelu(torch, work, device):
    gelu = lambda x: torch.nn.functional.gelu(x, approximate="tanh")
    return _of_rows(torch, work, device, gelu, gelu)


def _swiglu(torch, work, device):
    p = work.params
    gate, up = (_random(torch, device, p["rows"], p["columns"]) for _ in range(2))
    # Two kernels as it stands: PyTorch has no fused one outside of its compiler.
    function = lambda g, u: torch.nn.functional.silu(g) * u
    return Operation(
        lambda: function(gate, up),
        lambda: _wrong(
            torch,
            function(gate, up)[:_ROWS],
            function(gate[:_ROWS].double(), up[:_ROWS].double()),
            2 * _UNIT,
        ),
    )


def _cross_entropy(torch, work, device):
    p = work.params
    both = p["direction"] == "both"
    logits = _random(torch, device, p["rows"], p["columns"], grad=both)
    targets = torch.randint(0, p["columns"], (p["rows"],), generator=_generator(torch, device), device=device)
    loss = lambda x, t: torch.nn.functional.cross_entropy(x, t, reduction="none")

    def run():
        logits.grad = None
        losses = torch.nn.functional.cross_entropy(logits, targets)
        if both:
            losses.backward()

    def check():
        want = loss(logits[:_ROWS].double(), targets[:_ROWS])
        wrong = _wrong(torch, loss(logits, targets)[:_ROWS], want, _UNIT)
        return wrong or (_finite(torch, logits.grad) if both else "")

    return Operation(run, check)


def _embedding(torch, work, device):
    p = work.params
    weights = _random(torch, device, p["vocabulary"], p["hidden"])
    ids = torch.randint(0, p["vocabulary"], (p["tokens"],), generator=_generator(torch, device), device=device)
    lookup = lambda: torch.nn.functional.embedding(ids, weights)
    return Operation(
        lookup, lambda: "" if bool(torch.equal(lookup(), weights[ids])) else "a row is another one"
    )


def _adam(torch, work, device):
    parameter = torch.nn.Parameter(_random(torch, device, work.params["parameters"], dtype=torch.float32))
    parameter.grad = _random(torch, device, work.params["parameters"], dtype=torch.float32)
    before = parameter.detach().clone()
    optimizer = torch.optim.Adam([parameter], lr=1e-3, fused=True)
    optimizer.step()
    # The first step of Adam is the sign of the gradient times the learning rate, but for epsilon.
    moved = (before - parameter.detach()) * parameter.grad.sign()
    right = bool(((moved - 1e-3).abs() < 1e-5)[parameter.grad.abs() > 1e-3].all())
    return Operation(optimizer.step, lambda: "" if right else "the first step is not that of Adam")


def _all_reduce(torch, work, device):
    ranks = torch.distributed.get_world_size()
    data = torch.zeros(work.params["bytes"] // 2, dtype=torch.bfloat16, device=device)

    def check():
        data.fill_(1)
        torch.distributed.all_reduce(data)
        return "" if bool((data == ranks).all()) else "the sum of ones is not the number of ranks"

    return Operation(lambda: torch.distributed.all_reduce(data), check)


_MAKERS = {
    "copy": _copy,
    "product": _product,
    "attention": _attention,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "softmax": _softmax,
    "cross_entropy": _cross_entropy,
    "gelu": _gelu,
    "swiglu": _swiglu,
    "embedding": _embedding,
    "adam": _adam,
    "all_reduce": _all_reduce,
}


def names():
    return set(_MAKERS)


def make(torch, work, device):
    """An Operation. Unsupported where this torch or this device has none."""
    return _MAKERS[work.name](torch, work, device)
