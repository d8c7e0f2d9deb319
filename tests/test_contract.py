"""What must be true of every mechanism. A new one is tested here without an edit: they are found by name."""

import copy
import pickle

import pytest
import torch

import attnlib
from attnlib import Tap, available, create, record, switch_off
from attnlib.registry import mechanism

CHANNELS, ROWS, COLUMNS = 32, 10, 14  # not square: a mechanism that mixes up rows and columns must fail
DROP_IN = [name for name in available() if mechanism(name).about.drop_in]


def built(name: str, **options):
    torch.manual_seed(0)
    return create(name, CHANNELS, **options).double().eval()


def picture(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, CHANNELS, ROWS, COLUMNS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=DROP_IN)
def module(request):
    return built(request.param)


def test_there_are_mechanisms():
    assert "se" in available()


def test_forward_is_use_of_attend(module):
    x = picture()
    assert torch.equal(module(x), module.use(x, module.attend(x)))


def test_output_has_the_shape_and_dtype_of_the_input(module):
    y = module(picture())
    assert y.shape == (3, CHANNELS, ROWS, COLUMNS) and y.dtype == torch.float64


def test_the_input_is_left_as_it_was(module):
    x = picture()
    before = x.clone()
    module(x)
    assert torch.equal(x, before)


def test_the_description_fits_the_weights(module):
    about = module.describe()
    weights = module.attend(picture())
    sizes = {"B": 3, "C": CHANNELS, "H": ROWS, "W": COLUMNS, "N": ROWS * COLUMNS}
    assert weights.dim() == len(about.axes) == len(about.shape)
    for size, letter in zip(weights.shape, about.shape):
        assert size == sizes.get(letter, letter) or (isinstance(letter, str) and letter not in sizes)
    if about.bounds is not None:
        assert weights.min() >= about.bounds[0] and weights.max() <= about.bounds[1]
    if about.kind == "softmax":
        total = weights.sum([about.axes.index(axis) for axis in about.sums_over])
        torch.testing.assert_close(total, torch.ones_like(total))
    assert about.paper and about.cite and about.title and about.name


@pytest.mark.parametrize("name", available())
def test_says_in_a_few_words_how_it_looks_and_acts(name):
    about = mechanism(name).about
    assert 0 < len(about.looks) <= 60 and 0 < len(about.acts) <= 60


def test_neutral_weights_have_the_shape_of_the_weights(module):
    x = picture()
    weights = module.attend(x)
    neutral = module.neutral(x, weights)
    assert neutral.shape == weights.shape
    if module.about.kind == "softmax":
        torch.testing.assert_close(neutral.sum(), weights.sum())


def test_switched_off_uses_the_neutral_weights(module):
    x = picture()
    expected = module.use(x, module.neutral(x, module.attend(x)))
    with switch_off(module):
        assert torch.equal(module(x), expected)
    assert torch.equal(module(x), module.use(x, module.attend(x)))


def test_recording_sees_the_weights_and_changes_nothing(module):
    x = picture()
    plain = module(x)
    with record(module) as weights:
        watched = module(x)
    torch.testing.assert_close(watched, plain)
    assert torch.equal(weights[""], module.attend(x))


def test_pictures_of_a_batch_do_not_see_each_other(module):
    x = picture()
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]))


def test_gradient_is_the_derivative(module):
    x = torch.randn(1, CHANNELS, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,), fast_mode=True)


def test_every_parameter_gets_a_gradient(module):
    # A mechanism may have no parameters: then the gradient of the picture is all there is.
    module.train()(picture().requires_grad_()).square().sum().backward()
    silent = [name for name, parameter in module.named_parameters() if parameter.grad is None]
    assert not silent


def test_memory_layout_does_not_matter(module):
    x = picture()
    strided = torch.stack([x, x], dim=-1)[..., 0]
    assert not strided.is_contiguous()
    torch.testing.assert_close(module(strided), module(x))
    torch.testing.assert_close(module(x.contiguous(memory_format=torch.channels_last)), module(x))


def test_copies_stand_on_their_own(module):
    x = picture()
    twin = copy.deepcopy(module)
    loaded = pickle.loads(pickle.dumps(module))
    assert torch.equal(twin(x), module(x)) and torch.equal(loaded(x), module(x))
    with switch_off(twin), torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        assert torch.equal(loaded(x), module(x))


def test_a_copy_made_while_watched_is_not_watched(module):
    with record(module):
        twin = copy.deepcopy(module)
        pickle.dumps(module)
    assert not twin.weights.watched


def test_compiles_in_one_graph(module):
    x = picture()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), module(x))


def test_exports(module):
    x = picture()
    exported = torch.export.export(module, (x,)).module()
    torch.testing.assert_close(exported(x), module(x))


def test_an_empty_batch_gives_an_empty_batch(module):
    assert module(picture()[:0]).shape == (0, CHANNELS, ROWS, COLUMNS)


@pytest.mark.parametrize("spoil, error, says", [
    (lambda x: (x * 255).to(torch.uint8), TypeError, "floating-point"),
    (lambda x: x[:, :-1], ValueError, f"{CHANNELS} channels"),
    (lambda x: x[0], ValueError, "(B, C, H, W)"),
    (lambda x: x[..., :0], ValueError, "at least one pixel"),
    (lambda x: x.numpy(), TypeError, "torch.Tensor"),
])
def test_bad_input_is_refused_in_one_sentence(module, spoil, error, says):
    with pytest.raises(error) as refused:
        module(spoil(picture()))
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_the_tap_is_where_the_weights_are(module):
    seen = []
    handle = module.weights.register_forward_hook(lambda tap, args, output: seen.append(output))
    module(picture())
    handle.remove()
    assert isinstance(module.weights, Tap) and torch.equal(seen[0], module.attend(picture()))


def test_import_needs_torch_alone():
    import subprocess
    import sys

    heavy = "pandas matplotlib ipywidgets captum torchvision sklearn skimage joblib IPython"
    code = (
        "import sys, torch; before = set(sys.modules); import attnlib; attnlib.available(); attnlib.create('se', 64);"
        f"print(*[m for m in '{heavy}'.split() if m in set(sys.modules) - before])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def test_everything_promised_can_be_imported():
    for name in attnlib.__all__:
        assert getattr(attnlib, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        attnlib.nonsense
