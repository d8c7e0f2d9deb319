import copy
import math
import pickle

import pytest
import torch
from torch import nn

from attnlib import Tap, create, insert, record, switch_off
from attnlib.backbones import resnet
from attnlib.saliency.attention import SELECTIONS, AttentionPool

X = torch.randn(3, 12, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TASK = torch.tensor([1, 0, 1])


def built(**options) -> AttentionPool:
    torch.manual_seed(0)
    return create("attention_pool", 12, **options).double().eval()


def naive(module: AttentionPool, x: torch.Tensor, task: list[int]) -> torch.Tensor:
    """The three equations, one number at a time."""
    v, b = module.key.weight[:, :, 0, 0].tolist(), module.key.bias.tolist()
    batch, channels, rows, columns = x.shape
    y = torch.zeros(batch, channels, 1, 1, dtype=x.dtype)
    for n in range(batch):
        query = module.queries[task[n]].tolist()
        raised = {}
        for i in range(rows):
            for j in range(columns):
                h = x[n, :, i, j].tolist()
                hidden = [math.tanh(sum(w * value for w, value in zip(row, h)) + bias) for row, bias in zip(v, b)]
                raised[i, j] = math.exp(sum(q * value for q, value in zip(query, hidden)) / module.temperature)
        for (i, j), value in raised.items():
            for c in range(channels):
                y[n, c, 0, 0] += value / sum(raised.values()) * x[n, c, i, j]
    return y


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_equals_the_naive_loop(temperature):
    module = built(hidden=5, queries=2, temperature=temperature)
    nn.init.normal_(module.key.bias)
    torch.testing.assert_close(module(X, TASK), naive(module, X, TASK.tolist()), rtol=1e-12, atol=1e-12)


def test_a_case_by_hand():
    # tanh(0) = 0, and the query is chosen so that the other score is ln 3: shares of 1 and 3 in 4.
    module = AttentionPool(1, 1, bias=False).double()
    with torch.no_grad():
        module.key.weight.fill_(1.0)
        module.queries.fill_(math.log(3) / math.tanh(2.0))
    x = torch.tensor([0.0, 2.0], dtype=torch.float64).view(1, 1, 1, 2)
    torch.testing.assert_close(module.attend(x).flatten(), torch.tensor([0.25, 0.75], dtype=torch.float64))
    assert module(x).item() == pytest.approx(1.5, abs=1e-12)


@pytest.mark.parametrize("hidden, bias, queries", [(7, True, 1), (7, False, 1), (5, True, 3)])
def test_parameter_count(hidden, bias, queries):
    module = AttentionPool(12, hidden, bias=bias, queries=queries)
    assert sum(p.numel() for p in module.parameters()) == 12 * hidden + (hidden if bias else 0) + queries * hidden


def test_hidden_units_are_a_quarter_of_the_channels_by_default():
    # 512·128 + 128 + 128, and at least one unit.
    assert sum(p.numel() for p in AttentionPool(512).parameters()) == 65_792
    assert AttentionPool(3).queries.shape == (1, 1)


def test_it_starts_from_glorots_bounds_however_many_queries_there_are():
    module = AttentionPool(64, 48, queries=1_000)
    assert module.queries.abs().max().item() == pytest.approx(math.sqrt(6 / 49), rel=0.01)
    assert module.key.weight.abs().max().item() == pytest.approx(math.sqrt(6 / (64 + 48)), rel=0.01)
    assert not module.key.bias.any()


# -- the contract, which tests/test_contract.py holds those mechanisms to that keep the shape ------------------------


@pytest.fixture(params=SELECTIONS)
def module(request):
    return built(select=request.param)


def test_forward_is_use_of_attend_and_has_the_form_of_average_pooling(module):
    y = module(X)
    assert torch.equal(y, module.use(X, module.attend(X)))
    assert y.shape == nn.AdaptiveAvgPool2d(1)(X).shape and y.dtype == X.dtype


def test_the_description_fits_the_weights(module):
    about, weights = module.describe(), module.attend(X)
    assert weights.shape == (3, 1, 10, 14) and about.shape == ("B", 1, "H", "W") and not about.drop_in
    assert weights.min() >= 0 and weights.max() <= 1 and about.bounds == (0, 1)
    assert about.sums_over == tuple(about.axes[2:])
    torch.testing.assert_close(weights.sum((2, 3)), torch.ones(3, 1, dtype=torch.float64))


def test_switched_off_it_is_average_pooling(module):
    with switch_off(module):
        torch.testing.assert_close(module(X), X.mean((2, 3), keepdim=True), rtol=1e-13, atol=1e-15)
    assert not torch.allclose(module(X), X.mean((2, 3), keepdim=True))


def test_recording_sees_the_weights_at_the_tap(module):
    plain = module(X)
    with record(module) as weights:
        assert torch.equal(module(X), plain)
    assert isinstance(module.weights, Tap) and torch.equal(weights[""], module.attend(X))


def test_pictures_of_a_batch_do_not_see_each_other(module):
    torch.testing.assert_close(module(X)[1:2], module(X[1:2]))


def test_memory_layout_does_not_matter_and_the_input_stays(module):
    before, strided = X.clone(), torch.stack([X, X], dim=-1)[..., 0]
    torch.testing.assert_close(module(strided), module(X))
    torch.testing.assert_close(module(X.contiguous(memory_format=torch.channels_last)), module(X))
    assert torch.equal(X, before)


def test_copies_stand_on_their_own(module):
    twin, loaded = copy.deepcopy(module), pickle.loads(pickle.dumps(module))
    with torch.no_grad():
        module.queries.zero_()
    assert torch.equal(twin(X), loaded(X)) and not torch.equal(twin(X), module(X))


def test_every_parameter_gets_a_gradient(module):
    module.train()(X).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_compiles_in_one_graph_and_exports(module):
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X), module(X))
    torch.testing.assert_close(torch.export.export(module, (X,)).module()(X), module(X))


def test_torch_fx_can_follow_it(module):
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(12, 12, 1).double(), module))
    torch.testing.assert_close(traced(X), module(getattr(traced, '0')(X)))


def test_compiles_and_exports_with_a_task():
    module = built(queries=2)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X, TASK), module(X, TASK))
    torch.testing.assert_close(torch.export.export(module, (X, TASK)).module()(X, TASK), module(X, TASK))


def test_an_empty_batch_gives_an_empty_batch(module):
    assert module(X[:0]).shape == (0, 12, 1, 1)


def test_one_position_is_passed_on(module):
    torch.testing.assert_close(module(X[..., :1, :1]), X[..., :1, :1])


@pytest.mark.parametrize("spoil, error, says", [
    (lambda x: (x * 255).to(torch.uint8), TypeError, "floating-point"),
    (lambda x: x[:, :-1], ValueError, "12 channels"), (lambda x: x[0], ValueError, "(B, C, H, W)"),
    (lambda x: x[..., :0], ValueError, "at least one pixel"), (lambda x: x.numpy(), TypeError, "torch.Tensor"),
])
def test_bad_input_is_refused_in_one_sentence(spoil, error, says):
    with pytest.raises(error) as refused:
        built()(spoil(X))
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_gradient_is_the_derivative():
    module, x = built(hidden=3, queries=2), X[:2].clone().requires_grad_()
    inputs = x, *module.parameters()
    assert torch.autograd.gradcheck(lambda x, *parameters: module(x, TASK[:2]), inputs, fast_mode=True)


def test_half_precision_stays_half():
    module, x = built().to(torch.bfloat16), X.to(torch.bfloat16)
    assert module(x).dtype == torch.bfloat16
    torch.testing.assert_close(module(x).double(), built()(X), atol=0.05, rtol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(built().float()(X.float()).double(), built()(X), atol=0.05, rtol=0.05)


# -- selection --------------------------------------------------------------------------------------------------------


def test_where_does_not_matter():
    order = torch.randperm(140)
    torch.testing.assert_close(built()(X.flatten(2)[:, :, order].view_as(X)), built()(X))


def test_temperature_goes_from_hard_to_equal():
    hard = built(select="hard")(X)
    torch.testing.assert_close(built(temperature=1e-4)(X), hard)
    torch.testing.assert_close(built(temperature=1e9)(X), X.mean((2, 3), keepdim=True))


def test_hard_selection_passes_on_the_position_with_the_highest_score():
    module = built(select="hard")
    best = module.scores(X).flatten(1).argmax(1)
    assert torch.equal(module(X).flatten(1), X.flatten(2)[torch.arange(3), :, best])
    assert torch.equal(module.attend(X).flatten(1).sort().values[:, -2:], torch.tensor([[0.0, 1]] * 3).double())


def test_of_equal_scores_the_first_is_selected():
    weights = built(select="hard").attend(torch.ones_like(X))
    assert (weights[:, 0, 0, 0] == 1).all() and weights.sum() == 3


def test_hard_selection_passes_the_gradient_of_the_soft_weights():
    """dL/ds = (diag(a) − a aᵀ) dL/dw, with the hard forward pass's dL/dw."""
    module = built(select="hard")
    wanted = torch.randn(3, 12, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (module(X) * wanted).sum().backward()
    soft = built()
    shares = soft.attend(X).flatten(1)
    by_weight = (X * wanted).sum(1).flatten(1)  # dL/dw: what each position would bring
    (shares * by_weight).sum().backward()
    torch.testing.assert_close(module.queries.grad, soft.queries.grad)
    torch.testing.assert_close(module.key.weight.grad, soft.key.weight.grad)


def test_samples_come_as_often_as_their_shares_say():
    module = built(select="sampled").train()
    x = X[:1, :, :1, :4].expand(20_000, -1, -1, -1)
    torch.manual_seed(0)
    drawn = module.attend(x).detach()
    assert ((drawn == 0) | (drawn == 1)).all() and (drawn.sum((2, 3)) == 1).all()
    # Five standard deviations of a share of 20,000 draws are below 0.018.
    torch.testing.assert_close(drawn.mean(0), built().attend(x[:1])[0].detach(), atol=0.018, rtol=0)


def test_samples_follow_the_seed_and_only_in_training():
    module = built(select="sampled").train()
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(module.attend(X))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(module.eval()(X), built(select="hard")(X))


# -- queries ----------------------------------------------------------------------------------------------------------


def test_another_task_moves_the_weights_over_the_same_scene():
    module = AttentionPool(2, 2, bias=False, queries=2).double()
    with torch.no_grad():
        module.key.weight.copy_(torch.eye(2)[:, :, None, None])
        module.queries.copy_(20 * torch.eye(2))
    scene = torch.zeros(1, 2, 3, 5, dtype=torch.float64)
    scene[0, 0, 0, 1] = scene[0, 1, 2, 4] = 3.0  # one thing in the first channel, another in the second
    first, second = module.attend(scene, 0)[0, 0], module.attend(scene, 1)[0, 0]
    assert first[0, 1] > 0.99 and second[2, 4] > 0.99
    assert torch.equal(first, module.attend(scene, torch.tensor([0]))[0, 0])


def test_each_picture_has_its_own_task():
    module = built(queries=2)
    mixed = module(X, TASK)
    for number, task in enumerate(TASK.tolist()):
        torch.testing.assert_close(mixed[number : number + 1], module(X[number : number + 1], task))


def test_one_query_needs_no_task():
    assert torch.equal(built()(X), built()(X, 0)) and torch.equal(built()(X), built()(X, torch.zeros(3).long()))


@pytest.mark.parametrize("task, error, says", [
    ((), ValueError, "has 2 queries: say which"), ((2,), ValueError, "from 0 to 1"), ((-1,), ValueError, "from 0 to 1"),
    ((0.5,), TypeError, "whole number"), ((torch.tensor([0.0, 1, 1]),), TypeError, "int64"),
    ((torch.tensor([0, 1]),), ValueError, "each of the 3 pictures"), ((torch.tensor([0, 1, 2]),), ValueError, "0 to 1"),
])
def test_bad_tasks_are_refused_in_one_sentence(task, error, says):
    with pytest.raises(error) as refused:
        built(queries=2)(X, *task)
    assert says in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("options, says", [
    ({"hidden": 0}, "hidden is a whole number"), ({"hidden": 2.5}, "hidden is a whole number"),
    ({"queries": 0}, "queries is a whole number"), ({"select": "max"}, "one of soft, hard, sampled"),
    ({"temperature": 0}, "temperature is above 0"), ({"temperature": math.nan}, "temperature is above 0"),
])
def test_bad_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        create("attention_pool", 12, **options)


# -- in a network -----------------------------------------------------------------------------------------------------


def test_it_takes_the_place_of_the_average_pooling_of_a_resnet():
    torch.manual_seed(0)
    network = resnet(18, stem="cifar", classes=4).eval()
    x = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        before = network(x)
        network.avgpool = create("attention_pool", 512)
        assert network(x).shape == (2, 4)
        with switch_off(network):
            torch.testing.assert_close(network(x), before, rtol=1e-4, atol=1e-5)


def test_it_cannot_stand_between_layers():
    with pytest.raises(ValueError, match="does not return the shape it is given"):
        insert(resnet(18), "attention_pool", where="last")
