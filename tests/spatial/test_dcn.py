import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnlib import create, fit, intervene, record, switch_off
from attnlib.cost import card, flops
from attnlib.observe import held
from attnlib.spatial.dcn import CHOICES, DynamicCapacityNetwork, Refined, accuracy, entropy, flops_by_k, hinted
from attnlib.spatial.dcn_networks import coarse_network, fine_network

ROWS, COLUMNS, CHANNELS = 14, 19, 2
GRID = (4, 5)
X = torch.rand(3, CHANNELS, ROWS, COLUMNS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 3, 9])


def made(k=3, **options):
    torch.manual_seed(0)
    module = create("dcn", CHANNELS, k=k, **options).double()
    # Statistics that are not those of a fresh network, so that evaluation differs from training.
    with torch.no_grad():
        module.train()(X)
    return module.eval()


class Linear(nn.Module):
    """A network of one layer for patches without overlap, as small as can be."""

    def __init__(self, side, width=5):
        super().__init__()
        self.layer = nn.Conv2d(CHANNELS, width, side, stride=side)

    def forward(self, x):
        return self.layer(x)


def small(k=2, side=3, classes=4, **options):
    torch.manual_seed(0)
    top = nn.Sequential(nn.Conv2d(5, 6, 2, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(6, classes))
    given = dict(coarse=Linear(side), fine=nn.Sequential(Linear(side), nn.Tanh()), top=top)
    return create("dcn", CHANNELS, classes=classes, k=k, patch=side, stride=side, padding=0, **given | options).double()


def naive(module, x, mask):
    """Patch by patch and pixel by pixel; `mask` (B, h, w) says where."""
    refined = module.coarse(x).clone()
    for b, i, j in mask.nonzero().tolist():
        patch = torch.full((1, x.shape[1], module.patch, module.patch), module.fill, dtype=x.dtype)
        for r in range(module.patch):
            for c in range(module.patch):
                row, column = i * module.stride - module.padding + r, j * module.stride - module.padding + c
                if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                    patch[0, :, r, c] = x[b, :, row, column]
        refined[b, :, i, j] = module.fine(patch).flatten()
    return module.top(refined)


# -- what it computes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize("fill", [0.0, -0.7])
def test_equals_the_naive_loop(k, fill):
    module = made(k, fill=fill)
    mask = module.attend(X)[:, 0]
    assert mask.shape == (3, *GRID) and (mask.flatten(1).sum(1) == k).all()
    torch.testing.assert_close(module(X), naive(module, X, mask), rtol=1e-10, atol=1e-12)


def test_patches_reach_beyond_every_border():
    """Every position of a small picture, each of whose patches is larger than the picture in some direction."""
    module, x = made(0, fill=0.5), X[:1, :, :6, :5]
    assert module.grid(x) == (2, 2)
    mask = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(module.use(x, mask), naive(module, x, mask[:, 0]), rtol=1e-10, atol=1e-12)


def test_a_mask_with_another_number_of_positions_for_each_picture():
    module = made()
    mask = torch.zeros(3, 1, *GRID, dtype=torch.float64)
    mask[0, 0, 1, 2] = mask[2, 0, 0, 0] = mask[2, 0, 3, 4] = 1
    torch.testing.assert_close(module.use(X, mask), naive(module, X, mask[:, 0]), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(module.use(X, mask)[1], module.top(module.coarse(X))[1])


@pytest.mark.parametrize("k", [0, 4, "all"])
@pytest.mark.parametrize("training", [False, True])
def test_the_fused_path_gives_the_same_numbers(k, training):
    module = made(k).train(training)
    fast, slow = module(X), module.use(X, module.attend(X))
    assert isinstance(fast, Refined) == training
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-11)
    with record(module) as weights:
        torch.testing.assert_close(module(X), fast, rtol=1e-9, atol=1e-11)
    assert torch.equal(weights[""], module.attend(X))


def test_switched_off_it_is_the_coarse_network_and_all_ones_are_the_fine_one():
    module = made()
    with switch_off(module):
        torch.testing.assert_close(module(X), module.top(module.coarse(X)))
    ones = torch.ones(3, 1, *GRID, dtype=torch.float64)
    fine = torch.stack([module.fine(F.pad(X, (5,) * 4)[:, :, 4 * i : 4 * i + 11, 4 * j : 4 * j + 11])[:, :, 0, 0]
                        for i in range(4) for j in range(5)], 2).unflatten(2, GRID)
    with intervene(module, held(ones)):
        torch.testing.assert_close(module(X), module.top(fine))
    module.k = "all"
    torch.testing.assert_close(module(X), module.top(fine))
    module.k = 0
    torch.testing.assert_close(module(X), module.top(module.coarse(X)))


def test_the_ends_leave_out_what_they_do_not_need():
    module = made("all")
    module.coarse = None
    assert module(X).shape == (3, 10)
    module = made(0)
    module.fine = None
    assert module(X).shape == (3, 10)


def test_default_networks_see_the_patch_and_nothing_else():
    """A coarse vector depends on the 11×11 pixels that its fine one is made of, up to the corners."""
    coarse = coarse_network(1).double().eval()
    x = torch.rand(1, 1, 40, 40, dtype=torch.float64, requires_grad=True)
    vector = coarse[3](coarse[0](x))  # without the ReLUs, which hide some pixels
    vector[0, :, 4, 5].square().sum().backward()
    rows, columns = (x.grad[0, 0] != 0).nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (11, 21, 15, 25)
    assert (x.grad != 0).sum() == 121
    assert fine_network(3)(torch.rand(2, 3, 11, 11)).shape == (2, 24, 1, 1)


# -- where it looks ---------------------------------------------------------------------------------------------------


def test_entropy_by_hand():
    logits = torch.tensor([[0, 0, 0, 0], [0, 0, math.log(2), -1e6], [1e3, 0, 0, 0]], dtype=torch.float64)
    expected = torch.tensor([math.log(4), 1.5 * math.log(2), 0.0], dtype=torch.float64)
    torch.testing.assert_close(entropy(logits), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("build", [small, made])
def test_saliency_is_the_gradient_by_finite_differences(build):
    module = build().eval()
    coarse = module.coarse(X[:2]).detach()
    step, slope = 1e-6, torch.zeros_like(coarse)
    for at in range(coarse[0].numel()):
        moved = torch.zeros_like(coarse[0]).flatten()
        moved[at] = step
        moved = moved.view_as(coarse[0])
        with torch.no_grad():
            up, down = entropy(module.top(coarse + moved)), entropy(module.top(coarse - moved))
        slope.flatten(1)[:, at] = (up - down) / (2 * step)
    saliency = module.saliency(coarse)
    torch.testing.assert_close(saliency, slope.square().sum(1).sqrt(), rtol=1e-4, atol=1e-8)
    mask = module.attend(X[:2])
    best = slope.square().sum(1).flatten(1).topk(module.k).indices
    assert all(mask[b].flatten()[best[b]].sum() == module.k for b in range(2))


def test_saliency_does_not_depend_on_who_is_in_the_batch():
    module = small().train()
    torch.testing.assert_close(module.attend(X)[1:2], module.attend(X[1:2]))


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_choosing_works_without_gradients_outside(around):
    module = made()
    expected, answer = module.attend(X), module(X).detach()
    with around():
        x = X + 0  # an inference tensor, in inference mode
        torch.testing.assert_close(module.attend(x), expected)
        torch.testing.assert_close(module(x), answer)
    assert module(X).requires_grad and not module.attend(X).requires_grad
    assert all(parameter.grad is None for parameter in module.parameters())


def test_of_equals_the_first_is_chosen():
    module = small(k=3, side=2)
    nn.init.zeros_(module.top[-1].weight)  # the answer depends on nothing
    expected = torch.zeros(3, 1, 7, 9, dtype=torch.float64)
    expected[:, 0, 0, :3] = 1
    assert torch.equal(module.attend(X), expected)


def test_norm_chooses_the_longest_coarse_vectors():
    module = made(choose="norm")
    longest = module.coarse(X).norm(dim=1).flatten(1).topk(3).indices
    assert torch.equal(module.attend(X).flatten(1), torch.zeros(3, 20).double().scatter(1, longest, 1.0))


def test_random_chooses_k_different_positions_evenly_and_by_the_seed():
    module = small(k=2, side=7, choose="random")  # 2×2 positions
    x = X.new_zeros(4_000, CHANNELS, ROWS, 14)
    torch.manual_seed(3)
    mask = module.attend(x)
    assert (mask.sum((1, 2, 3)) == 2).all() and (mask.mean(0) - 0.5).abs().max() < 0.04
    torch.manual_seed(3)
    assert torch.equal(module.attend(x), mask) and not torch.equal(module.attend(x), mask)


def test_the_description_fits():
    module = made()
    about, weights = module.describe(), module.attend(X)
    assert weights.dim() == len(about.axes) == len(about.shape) and not about.drop_in
    assert ((weights == 0) | (weights == 1)).all() and about.bounds == (0, 1) and about.kind == "gate"
    assert "Dynamic capacity network" in str(card("dcn", torch.zeros(1, 3, 24, 28), seconds=0))


# -- training ---------------------------------------------------------------------------------------------------------


def test_training_gives_logits_and_the_squared_distance():
    module = small(k=2).train()
    output, mask = module(X), module.attend(X)[:, 0]
    assert isinstance(output, Refined) and output.logits.shape == (3, 4)
    coarse, expected = module.coarse(X), torch.zeros(3, dtype=torch.float64)
    for b, i, j in mask.nonzero().tolist():
        fine = module.fine(X[b : b + 1, :, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3]).flatten()
        expected[b] += (fine - coarse[b, :, i, j]).square().sum()
    torch.testing.assert_close(output.hint, expected)
    torch.testing.assert_close(hinted(0.3)(output, LABELS % 4),
                               F.cross_entropy(output.logits, LABELS % 4) + 0.3 * expected.mean())


def test_the_hint_teaches_the_coarse_network_alone():
    module = made().train()
    module(X).hint.sum().backward()
    assert all(parameter.grad is not None for parameter in module.coarse.parameters())
    assert module.coarse[0].weight.grad.abs().sum() > 0
    assert all(p.grad is None for part in (module.fine, module.top) for p in part.parameters())


def test_the_answer_teaches_all_three():
    module = made().train()
    F.cross_entropy(module(X).logits, LABELS).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_refined_places_give_the_coarse_network_no_gradient():
    module = small(k=20)  # 4×6 = 24 positions
    coarse_seen = []
    module.coarse.register_forward_hook(lambda layer, args, y: coarse_seen.append(y) or y.retain_grad())
    module.train()(X).logits.square().sum().backward()
    touched = coarse_seen[0].grad.abs().sum(1) > 0
    assert torch.equal(touched, module.attend(X)[:, 0] == 0)


def test_gradient_is_the_derivative():
    module = small(k=2).train()
    x, mask = X[:2, :, :6, :6].clone().requires_grad_(), torch.zeros(2, 1, 2, 2, dtype=torch.float64)
    mask[0, 0, 0, 1] = mask[1, 0, 1] = 1
    # The distance's derivative is that of the coarse vectors alone, so it is left out here.
    assert torch.autograd.gradcheck(lambda x, *_: module.use(x, mask).logits, (x, *module.parameters()))


def test_losses_take_what_evaluation_gives():
    logits = torch.tensor([[2.0, 0, 0], [0, 3, 0], [0, 0, 1]])
    labels = torch.tensor([0, 1, 0])
    assert accuracy(logits, labels) == accuracy(Refined(logits, torch.ones(3)), labels) == pytest.approx(2 / 3)
    assert hinted()(logits, labels) == F.cross_entropy(logits, labels)
    assert hinted(0.0)(Refined(logits, torch.full((3,), math.nan)), labels) == F.cross_entropy(logits, labels)
    with pytest.raises(ValueError, match="0 or more"):
        hinted(-1.0)


@pytest.mark.parametrize("k", [0, 2, "all"])
def test_fit_trains_it_as_it_is(k):
    """Which quarter of the picture is bright."""
    labels = torch.arange(4).repeat(40)
    images = 0.1 * torch.rand(160, CHANNELS, 12, 12, generator=torch.Generator().manual_seed(0))
    for image, label in zip(images, labels.tolist()):
        image[:, 6 * (label // 2) :, 6 * (label % 2) :][:, :6, :6] += 0.7
    module = small(k, top=nn.Sequential(nn.Flatten(), nn.Linear(5 * 16, 4))).float()
    run = fit(module, (images, labels), (images, labels), steps=60, batch=40, lr=0.03, loss=hinted(), accuracy=accuracy,
              progress=False)
    assert run.history["test_accuracy"].iloc[-1] > 0.9


# -- what it costs ----------------------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_parts():
    count = sum(parameter.numel() for parameter in DynamicCapacityNetwork(3, classes=7).parameters())
    coarse = 12 * 3 * 49 + 2 * 12 + 24 * 12 * 9 + 2 * 24
    fine = 24 * 3 * 9 + 4 * 24 * 24 * 9 + 5 * 2 * 24
    assert count == coarse + fine + 96 * 24 * 16 + 96 + (96 + 1) * 7


def test_arithmetic_by_hand():
    module, x = made(), X[:1]
    counted = flops_by_k(module, x, [0, 1, 3, 20, "all"])
    top = 2 * (96 * 24 * 16 * 3 * 3 + 96 * 10)  # 4×5 positions, padded by two, give 3×3
    coarse = 2 * (12 * CHANNELS * 49 * 7 * 10 + 24 * 12 * 9 * 4 * 5)
    patch = 2 * 9 * 24 * (CHANNELS * 81 + 24 * (49 + 25 + 9 + 1))
    assert counted[0] == coarse + top and counted["all"] == 20 * patch + top
    # The choice needs the top and its gradient once more.
    assert [counted[k] for k in (1, 3, 20)] == [coarse + 3 * top + k * patch for k in (1, 3, 20)]
    assert module.k == 3 and flops(module, x) == counted[3]


# -- copies, types, errors --------------------------------------------------------------------------------------------


def test_copies_stand_on_their_own():
    module = made()
    twin, loaded = copy.deepcopy(module), pickle.loads(pickle.dumps(module))
    assert torch.equal(twin(X), module(X)) and torch.equal(loaded(X), module(X))
    with torch.no_grad():
        twin.fine[0].weight.zero_()
    assert torch.equal(loaded(X), module(X)) and not torch.equal(twin(X), module(X))


def test_pictures_of_a_batch_do_not_see_each_other_and_the_input_stays():
    module, before = made(), X.clone()
    torch.testing.assert_close(module(X)[1:2], module(X[1:2]))
    torch.testing.assert_close(module(X.contiguous(memory_format=torch.channels_last)), module(X))
    assert torch.equal(X, before)


@pytest.mark.parametrize("k", [0, 3, "all"])
@pytest.mark.parametrize("choose", CHOICES)
def test_an_empty_batch_gives_an_empty_batch(k, choose):
    module = made(k, choose=choose)
    assert module(X[:0]).shape == (0, 10) and module.use(X[:0], module.attend(X[:0])).shape == (0, 10)


def test_half_precision():
    module = made().float()
    with torch.autocast("cpu", torch.bfloat16):
        mask, output = module.attend(X.float()), module.train()(X.float())
    assert (mask.sum((1, 2, 3)) == 3).all() and output.hint.dtype == torch.float32
    assert output.logits.isfinite().all()
    half = made().to(torch.bfloat16)
    assert half(X.bfloat16()).dtype == torch.bfloat16


def test_k_beyond_the_positions_is_refused():
    with pytest.raises(ValueError, match="k=21 positions .* 14×19 pixels, which has 4×5") as refused:
        made(20)
        create("dcn", CHANNELS, k=21).double()(X)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("spoil, error, says", [
    (lambda x: x[:, :-1], ValueError, "2 channels"), (lambda x: x[0], ValueError, "(B, C, H, W)"),
    (lambda x: x[..., :0], ValueError, "at least one pixel"), (lambda x: x.long(), TypeError, "floating-point"),
])
def test_bad_input_is_refused(spoil, error, says):
    with pytest.raises(error) as refused:
        made()(spoil(X))
    assert says in str(refused.value)


@pytest.mark.parametrize("options, message", [
    (dict(k=-1), "k, unless it is 'all', is a whole number from 0 up"), (dict(k=1.5), "is a whole number from 0"),
    (dict(k="some"), "is a whole number from 0"), (dict(classes=1), "classes is a whole number from 2"),
    (dict(stride=0), "stride is a whole number from 1"), (dict(choose="best"), "one of entropy, norm, random"),
    (dict(patch=12), "sees 11×11 pixels"),
])
def test_wrong_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        create("dcn", CHANNELS, **options)


def test_networks_that_do_not_fit_are_told():
    with pytest.raises(ValueError, match=r"the coarse network should have the shape \(3, any, 4, 6\)"):
        small(coarse=Linear(2))(X)
    with pytest.raises(ValueError, match=r"the fine network should have the shape \(6, 5\)"):
        small(fine=Linear(3, width=7))(X)
    with pytest.raises(ValueError, match=r"weights of dcn should have the shape \(3, 1, 4, 6\)"):
        small().use(X, torch.ones(3, 1, 6, 4))
    with pytest.raises(ValueError, match="smaller than a patch of 3"):
        small()(X[..., :2])


def test_a_top_with_batch_normalisation_can_choose_too():
    top = nn.Sequential(nn.Conv2d(24, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(8, 10))
    module = made(top=top).train()
    before = top[1].running_mean.clone()
    module(X).logits.sum().backward()
    assert not torch.equal(top[1].running_mean, before) and top[1].weight.grad.abs().sum() > 0
    assert torch.equal(module.eval()(X), module.use(X, module.attend(X)))


def test_it_compiles_in_parts():
    module = made()
    torch.testing.assert_close(torch.compile(module, backend="eager")(X), module(X))


@pytest.mark.parametrize("k", [0, "all"])
def test_the_ends_can_be_exported(k):
    module = made(k)
    torch.testing.assert_close(torch.export.export(module, (X,)).module()(X), module(X))


def test_a_choice_by_length_can_be_exported():
    module = made(choose="norm")
    torch.testing.assert_close(torch.export.export(module, (X,)).module()(X), module(X))
