"""What only a GPU can show of the CUDA kernels; the files of the ops compare their results there too."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attention_references as references
import pytest
import torch
from tiny import TINY, execute, program
from torch import Tensor
from worlds import write_shifting_world

from genie_cpp import nn, ops

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    if lack := references.cuda_lacks():
        pytest.skip(lack)
    ops.enable_unverified_cuda_kernels()
    yield
    ops.enable_unverified_cuda_kernels(False)


def st(axis: str, frames: int, positions: int) -> tuple[Callable[..., Tensor], list[tuple[int, ...]]]:
    return lambda qkv: ops.st_attention(qkv, axis, True, True), [(2, frames, positions, 3, 4, 32)]


def area(by_frame: bool) -> tuple[Callable[..., Tensor], list[tuple[int, ...]]]:
    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        starts = torch.tensor([0, 70, 70, 71, 300], device=q.device, dtype=torch.int32)
        frames = torch.arange(300, device=q.device) % 5 if by_frame else None
        return ops.area_attention(q, k, v, starts, 300, None, frames)

    return function, [(300, 4, 32)] * 3


def rope(x: Tensor) -> Tensor:
    turned = ops.rope_3d(x, torch.arange(x.shape[1], device=x.device), 3, 5)
    angle = torch.arange(x.shape[1] * x.shape[-1], device=x.device, dtype=torch.float32).view(x.shape[1], -1)
    return ops.rope_register(turned, angle.cos(), angle.sin())


def mlp(x: Tensor, nw: Tensor, nb: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return ops.norm_mlp_residual(x, nw, nb, 1e-5, w1, b1, w2, b2)


CASES: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "time": st("time", 16, 9),
    "longer time": st("time", 40, 5),
    "time by torch's kernels": st("time", 70, 5),
    "space": st("space", 3, 77),
    "areas": area(False),
    "areas by frame": area(True),
    "rope": (rope, [(2, 40, 4, 32)]),
    "codes": (lambda codes: ops.vector_quantize(codes[:50] + 0.1, codes)[0], [(300, 16)]),
    "cross entropy": (
        lambda x, w, b: ops.linear_cross_entropy(x, w, b, torch.arange(len(x), device=x.device) % len(w))[0],
        [(300, 16), (37, 16), (37,)],
    ),
    "norm_linear": (
        lambda x, nw, nb, w, b: ops.norm_linear(x, nw, nb, 1e-5, w, b),
        [(2, 50, 32), (32,), (32,), (48, 32), (48,)],
    ),
    "linear_residual": (ops.linear_residual, [(2, 50, 32), (48, 32), (48,), (2, 50, 48)]),
    "mlp": (mlp, [(2, 50, 32), (32,), (32,), (96, 32), (96,), (32, 96), (32,)]),
}
FULL_PRECISION = ("norm_linear", "linear_residual", "mlp")
BY_DTYPE = [
    pytest.param(name, dtype, id=f"{name}-{str(dtype).split('.')[1]}")
    for name in CASES
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
    if dtype == torch.float32 or name not in FULL_PRECISION
]


def inputs_of(name: str, dtype: torch.dtype = torch.float32, device: str = "cuda") -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = CASES[name][1]
    return [torch.randn(s, generator=generator).to(device, dtype).requires_grad_() for s in shapes]


def with_gradients(name: str, inputs: list[Tensor]) -> list[Tensor]:
    out = CASES[name][0](*inputs)
    upstream = torch.linspace(-1, 1, out.numel(), device=out.device).cos().view_as(out).to(out.dtype)
    return [out, *torch.autograd.grad(out, inputs, upstream)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name,dtype", BY_DTYPE)
def test_results_and_gradients_are_the_same_bits_each_time(name: str, dtype: torch.dtype) -> None:
    inputs = inputs_of(name, dtype)
    first = with_gradients(name, inputs)
    for _ in range(5):
        assert same(with_gradients(name, inputs), first)


@pytest.mark.parametrize("name", CASES)
def test_work_is_queued_on_the_current_stream(name: str) -> None:
    inputs = inputs_of(name)
    expected = with_gradients(name, inputs)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = [torch.zeros_like(x) for x in inputs]
        torch.cuda._sleep(50_000_000)  # on another stream the kernel would read the zeros
        with torch.no_grad():
            for target, source in zip(late, inputs, strict=True):
                target.copy_(source)
        result = with_gradients(name, [x.requires_grad_() for x in late])
    stream.synchronize()
    assert same(result, expected)


@pytest.mark.parametrize("name", CASES)
def test_work_is_done_on_the_device_of_the_tensors(name: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    with torch.cuda.device(0):
        result = with_gradients(name, inputs_of(name, device="cuda:1"))
    assert all(x.device == torch.device("cuda:1") for x in result)
    assert same(result, with_gradients(name, inputs_of(name, device="cuda:0")))


@pytest.mark.parametrize("name", [name for name in CASES if name not in FULL_PRECISION])
def test_nothing_waits_for_the_device(name: str) -> None:
    inputs = inputs_of(name)
    if name.startswith("areas"):  # whose offsets come from the host
        starts = torch.tensor([0, 70, 70, 71, 300], device="cuda")
        frames = torch.arange(300, device="cuda") % 5 if name == "areas by frame" else None

        def function() -> Tensor:
            return ops.area_attention(*inputs, starts, 300, None, frames)
    else:

        def function() -> Tensor:
            return CASES[name][0](*inputs)

    torch.autograd.grad(function().sum(), inputs)
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.grad(function().sum(), inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", CASES)
def test_torch_accepts_the_ops(name: str) -> None:
    """What torch.library.opcheck demands of an op: its Meta kernel and its autograd fit the CUDA kernel."""
    inputs = inputs_of(name)
    compiled = torch.compile(CASES[name][0], fullgraph=True, backend="aot_eager")
    references.assert_close(compiled(*inputs), CASES[name][0](*inputs), 1e-6)


def test_more_than_two_billion_elements_are_addressed() -> None:
    rows, channels = 2**22 + 1, 512
    if torch.cuda.mem_get_info()[0] < 20 * 2**30:
        pytest.skip("needs 20 GB of free GPU memory")
    x = torch.zeros(1, rows, 1, channels, dtype=torch.bfloat16, device="cuda")
    x[0, -1] = 1
    ids = torch.full((rows,), 7, device="cuda")
    expected = ops.rope_3d(torch.ones(1, 1, 1, channels, dtype=torch.bfloat16, device="cuda"), ids[:1], 3, 5)
    out = ops.rope_3d(x, ids, 3, 5)
    assert torch.equal(out[0, -1], expected[0, 0]) and not out[0, :-1].any()


def test_modules_compute_the_same_with_the_kernels_without_them_and_on_the_cpu() -> None:
    references.seed(2)
    model = nn.STTransformer(num_frames=5, num_patches_per_frame=9, dim=64, depth=2, num_heads=4).eval()
    x = torch.randn(2, 5, 9, 64)
    expected = model(x)
    model.to("cuda")
    by_kernels = model(x.cuda())
    ops.enable_unverified_cuda_kernels(False)
    by_parts = model(x.cuda())
    references.assert_close(by_kernels, expected, 1e-4)
    references.assert_close(by_parts, expected, 1e-4)


def test_an_op_that_is_off_refuses_cuda_tensors_and_names_the_remedy() -> None:
    ops.enable_unverified_cuda_kernels(False)
    with pytest.raises(NotImplementedError, match="enable_unverified_cuda_kernels"):
        ops.st_attention(torch.zeros(1, 2, 2, 3, 1, 8, device="cuda"), "time")
    x = torch.randn(1, 4, 2, 16)
    references.assert_close(rope(x.cuda()), rope(x), 1e-5)


@pytest.mark.parametrize("kernels", ["0", "1"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tiny_genie_trains(tmp_path, monkeypatch, kernels: str, dtype: str) -> None:
    monkeypatch.setenv("GENIE_UNVERIFIED_CUDA_KERNELS", kernels)
    (tmp_path / "tiny.yaml").write_text(TINY)
    write_shifting_world(tmp_path / "world.h5")
    finished = execute(
        program("genie-train"),
        *("--config", tmp_path / "tiny.yaml", "--data", tmp_path / "world.h5", "--out", tmp_path / "run"),
        *("--set", "training.device=cuda", "--set", f"training.dtype={dtype}"),
    )
    assert finished.returncode == 0, finished.stderr
    assert ("CUDA kernels" in finished.stderr) == (kernels == "0")
