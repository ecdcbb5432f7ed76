"""What is measured, and what each operation must compute and move: no torch here.

A Work is one operation at one shape, with its FLOPs and the bytes that it cannot do without (each operand read once, each
result written once; what an implementation reads again counts against it).

    for work in works(FULL):
        work.name, work.params, work.flops, work.bytes

Shapes are those of Llama 3.1 8B: hidden 4096, 32 heads of 128, 8 of keys and values, intermediate 14336, vocabulary 128256.
"""
import dataclasses

BF16, F32, I64 = 2, 4, 8


@dataclasses.dataclass(frozen=True)
class Model:
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tokens: int
    sequences: tuple  # Lengths of attention; each in a batch of about `tokens` tokens.
    square: int  # Of the product that is the ceiling.
    copied: int  # Bytes of the copy that is the ceiling.
    parameters: int  # That the optimizer steps.
    reduced: tuple  # Bytes of the messages of all_reduce.


FULL = Model(4096, 32, 8, 128, 14336, 128256, 8192, (4096, 16384), 8192, 2**30, 2**26, (2**20, 2**24, 2**28))
# To try the program, where a number means nothing.
SMALL = Model(64, 4, 2, 16, 96, 512, 32, (32,), 64, 2**12, 2**10, (2**12,))


@dataclasses.dataclass(frozen=True)
class Work:
    name: str
    params: dict
    flops: float = 0
    bytes: float = 0
    # What it is held against: "product" (FLOP/s) or "copy" (bytes/s).
    ceiling: str = "copy"


def product(m, n, k):
    """C[m, n] = A[m, k] B[n, k]^T in bf16."""
    return Work(
        "product",
        {"dtype": "bf16", "m": m, "n": n, "k": k},
        flops=2 * m * n * k,
        bytes=BF16 * (m * k + n * k + m * n),
        ceiling="product",
    )


def attention(batch, heads, kv_heads, sequence, head_dim, causal, direction, kernel):
    """4 B H S^2 D forward (two products of 2 B H S^2 D), half of it if causal; backward 2.5 times that (five products).

    Causal: exactly half, as the figures in papers count, though a triangle with its diagonal is a little more.
    """
    flops = 4 * batch * heads * sequence**2 * head_dim
    if causal:
        flops /= 2
    query, key = (batch * h * sequence * head_dim * BF16 for h in (heads, kv_heads))
    moved = 2 * query + 2 * key  # q, o; k, v
    if direction == "backward":
        flops *= 2.5
        moved += 2 * query + 2 * key  # do, dq; dk, dv
    params = {
        "dtype": "bf16",
        "batch": batch,
        "heads": heads,
        "kv_heads": kv_heads,
        "sequence": sequence,
        "head_dim": head_dim,
        "causal": causal,
        "direction": direction,
        "kernel": kernel,
    }
    return Work("attention", params, flops=flops, bytes=moved, ceiling="product")


def rows(name, direction, rows_, columns, arrays, extra=0):
    """An operation on [rows, columns] in bf16 that reads and writes so many arrays of that shape."""
    params = {"dtype": "bf16", "rows": rows_, "columns": columns, "direction": direction}
    return Work(name, params, bytes=arrays * rows_ * columns * BF16 + extra)


def adam(parameters):
    """Parameter, gradient and both moments in f32 are read, all but the gradient written."""
    return Work("adam", {"dtype": "f32", "parameters": parameters}, bytes=7 * F32 * parameters)


def copy(size):
    return Work("copy", {"dtype": "u8", "bytes": size}, bytes=2 * size)


def embedding(tokens, hidden, vocabulary):
    return Work(
        "embedding",
        {"dtype": "bf16", "tokens": tokens, "hidden": hidden, "vocabulary": vocabulary},
        bytes=2 * tokens * hidden * BF16 + tokens * I64,
    )


def all_reduce(size):
    return Work("all_reduce", {"dtype": "bf16", "bytes": size}, bytes=size)


def bus_bytes(size, ranks):
    """What each link must carry of an all_reduce, as NCCL's tests count: 2 (p - 1) / p of the message."""
    return size * 2 * (ranks - 1) / ranks


def works(model, ranks=1):
    """All of them, the two ceilings first."""
    m = model
    yield copy(m.copied)
    yield product(m.square, m.square, m.square)
    head_columns = (m.heads + 2 * m.kv_heads) * m.head_dim
    for outputs, inputs in (
        (head_columns, m.hidden),
        (m.hidden, m.heads * m.head_dim),
        (2 * m.intermediate, m.hidden),
        (m.hidden, m.intermediate),
        (m.vocabulary, m.hidden),
    ):
        yield product(m.tokens, outputs, inputs)
    for sequence in m.sequences:
        batch = max(1, 2 * m.tokens // sequence)
        # Equal heads with dimensions of a half and a whole, then those of the model, whose keys are shared.
        for kv_heads, head_dim in ((m.heads, m.head_dim // 2), (m.heads, m.head_dim), (m.kv_heads, m.head_dim)):
            for causal in (False, True):
                for direction in ("forward", "backward"):
                    for kernel in ("flash", "cudnn"):
                        yield attention(
                            batch, m.heads, kv_heads, sequence, head_dim, causal, direction, kernel
                        )
    for norm in ("layer_norm", "rms_norm"):
        yield rows(norm, "forward", m.tokens, m.hidden, 2)
        yield rows(norm, "backward", m.tokens, m.hidden, 3)
    yield rows("softmax", "forward", m.tokens, m.sequences[0], 2)
    # Forward reads the logits; with the backward pass they are read again and their gradient is written.
    targets = m.tokens // 2 * I64
    yield rows("cross_entropy", "forward", m.tokens // 2, m.vocabulary, 1, targets)
    yield rows("cross_entropy", "both", m.tokens // 2, m.vocabulary, 3, targets)
    yield rows("gelu", "forward", m.tokens, m.intermediate, 2)
    yield rows("gelu", "backward", m.tokens, m.intermediate, 3)
    # Gate and up, and the result.
    yield rows("swiglu", "forward", m.tokens, m.intermediate, 3)
    yield embedding(m.tokens, m.hidden, m.vocabulary)
    yield adam(m.parameters)
    if ranks > 1:
        for size in m.reduced:
            yield all_reduce(size)
