import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F

from attnlib import create, fit, intervene, record, switch_off
from attnlib.observe import held, shuffled
from attnlib.spatial.reinforce import Episode, correct, reinforce
from attnlib.spatial.retina import retina

CHANNELS, ROWS, COLUMNS = 2, 10, 14
SMALL = dict(classes=3, glimpses=4, patch=3, scales=2, hidden=6, features=5)
LABELS = torch.tensor([0, 2, 1])


def pictures(batch=3, channels=CHANNELS):
    return torch.rand(batch, channels, ROWS, COLUMNS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def made(**options):
    """With weights larger than at the start, so that it looks around."""
    torch.manual_seed(0)
    module = create("ram", CHANNELS, **SMALL | options).double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def seeded(module, x, seed=3):
    torch.manual_seed(seed)
    return module(x)


def grads(module, loss):
    """The gradient of each parameter that has one."""
    module.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None and p.grad.any()}


# -- the recurrence ---------------------------------------------------------------------------------------------------


def naive(module, x, noise=None):
    """One picture and one number after another: places, logits, logarithms of densities, baselines."""
    def linear(layer, values):
        weight, bias = layer.weight.tolist(), layer.bias.tolist()
        return [b + sum(w * v for w, v in zip(row, values)) for row, b in zip(weight, bias)]

    def relu(*terms):
        return [max(0.0, sum(values)) for values in zip(*terms)]

    places, logits, log_probs, baselines = [], [], [], []
    for number in range(len(x)):
        state, looked, logs, hoped = [0.0] * module.carry.in_features, [], [], []
        for step in range(module.glimpses):
            hoped += linear(module.baseline, state)
            mean = linear(module.locator, state)
            away = [0.0, 0.0] if noise is None else [module.sigma * n for n in noise[number, step].tolist()]
            at = [m + a for m, a in zip(mean, away)]
            density = [math.exp(-(a / module.sigma)**2 / 2) / (module.sigma * math.sqrt(2 * math.pi)) for a in away]
            logs.append(math.log(density[0] * density[1]))
            looked.append(at)
            place = torch.tensor([at], dtype=torch.float64)
            patch = retina(x[number : number + 1], place, module.patch, module.scales).flatten().tolist()
            what, where = relu(linear(module.what, patch)), relu(linear(module.where, at))
            seen = relu(linear(module.from_what, what), linear(module.from_where, where))
            state = relu(linear(module.carry, state), linear(module.take, seen))
        places.append(looked)
        logits.append(linear(module.classifier, state))
        log_probs.append(logs)
        baselines.append(hoped)
    return [torch.tensor(values, dtype=torch.float64) for values in (places, logits, log_probs, baselines)]


def test_it_is_the_naive_recurrence():
    module, x = made(), pictures()
    places, logits, _, _ = naive(module, x)
    torch.testing.assert_close(module.attend(x), places)
    torch.testing.assert_close(module(x), logits)
    assert (places[0] - places[1]).abs().max() > 0.01  # it looks elsewhere in another picture


def test_in_training_it_is_the_naive_recurrence_with_noise():
    module, x = made().train(), pictures()
    torch.manual_seed(3)
    noise = torch.empty(3, 4, 2, dtype=torch.float64).normal_()
    places, *expected = naive(module, x, noise)
    torch.manual_seed(3)
    torch.testing.assert_close(module.attend(x), places)
    episode = seeded(module, x)
    assert isinstance(episode, Episode)
    for ours, theirs in zip(episode, expected):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("options", [
    {}, {"locator_hidden": 7}, {"squash": True}, {"attached": True}, {"through": True}, {"policy": "random"},
    {"policy": "middle"}, {"samples": 3},
])
@pytest.mark.parametrize("training", [False, True])
def test_one_pass_and_two_give_the_same_numbers(options, training):
    module, x = made(**options).train(training), pictures()
    at_once = seeded(module, x)
    with record(module) as weights:
        in_turn = seeded(module, x)
    copies = options.get("samples", 1) if training else 1
    assert weights[""].shape == (3 * copies, 4, 2)
    for ours, theirs in zip(at_once, in_turn):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("attached", [False, True])
def test_one_pass_and_two_give_the_same_gradients(attached):
    module, x = made(attached=attached).train(), pictures()
    at_once = grads(module, reinforce(seeded(module, x), LABELS))
    with intervene(module, lambda weights, x, attention: weights):
        in_turn = grads(module, reinforce(seeded(module, x), LABELS))
    assert at_once.keys() == in_turn.keys()
    for name, gradient in at_once.items():
        torch.testing.assert_close(gradient, in_turn[name])


def test_first_look_is_at_the_middle_before_training():
    module = create("ram", CHANNELS, **SMALL).double().eval()
    assert (module.attend(pictures())[:, 0] == 0).all()
    hidden = create("ram", CHANNELS, locator_hidden=16, **SMALL).double().eval()
    assert hidden.attend(pictures())[:, 0].abs().max() < 0.5


def test_a_tanh_keeps_the_mean_inside():
    far = made()
    torch.nn.init.constant_(far.locator.bias, 3.0)
    near = made(squash=True)
    near.load_state_dict(far.state_dict())
    assert far.attend(pictures())[:, 0].min() == 3 and near.attend(pictures()).abs().max() <= 1


def test_a_gain_multiplies_the_mean():
    module, tenth = made(), made(gain=0.1)
    torch.testing.assert_close(tenth.attend(pictures())[:, 0], 0.1 * module.attend(pictures())[:, 0])


def test_at_the_start_it_remembers_and_the_signal_keeps_its_size():
    torch.manual_seed(0)
    module = create("ram", 1, glimpses=2, patch=8)
    assert torch.equal(module.carry.weight, torch.eye(256)) and not module.carry.bias.any()
    x = torch.randn(200, 1, 28, 28)
    states = module.states(x, torch.zeros(200, 2, 2))
    power = states.square().mean((0, 2))
    assert 0.3 < power[1] < 3  # 1 came in
    assert (states[:, 2] >= states[:, 1]).all()


def test_parameters_are_those_of_the_layers():
    def count(**options):
        return sum(p.numel() for p in create("ram", 1, **options).parameters())

    # what, where, from both to g, from h and g to h; ten classes, one baseline, two coordinates
    papers = (64 + 1) * 128 + 3 * 128 + 2 * 129 * 256 + 2 * 257 * 256 + 257 * (10 + 1 + 2)
    assert count() == papers
    assert count(patch=12, scales=3) == papers + (3 * 144 - 64) * 128
    assert count(locator_hidden=128) == papers - 257 * 2 + 257 * 128 + 129 * 2
    assert create("ram", 1).pixels == 6 * 64 and create("ram", 1, glimpses=8, patch=12, scales=3).pixels == 8 * 3 * 144


def test_answers_after_each_glimpse():
    module, x = made(), pictures()
    at = module.attend(x)
    states = module.states(x, at)
    assert states.shape == (3, 5, 6) and (states[:, 0] == 0).all()
    answers = module.classifier(states[:, 1:])
    torch.testing.assert_close(answers[:, -1], module(x))
    for count in (1, 2, 3):  # fewer places are read as well
        torch.testing.assert_close(answers[:, count - 1], module.use(x, at[:, :count]))


# -- where gradients go -----------------------------------------------------------------------------------------------

SEEING = {f"{layer}.{part}" for layer in ("what", "where", "from_what", "from_where", "carry", "take")
          for part in ("weight", "bias")}


def test_the_classifier_leaves_the_locator_alone():
    module = made().train()
    found = grads(module, F.cross_entropy(seeded(module, pictures()).logits, LABELS))
    assert found.keys() == SEEING | {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("through", [True, False])
def test_reinforce_moves_the_locator(through):
    module = made(through=through).train()
    found = grads(module, seeded(module, pictures()).log_probs.sum())
    assert found.keys() == {"locator.weight", "locator.bias"} | (SEEING if through else set())


def test_the_baseline_learns_alone():
    module = made().train()
    found = grads(module, seeded(module, pictures()).baselines.square().sum())
    assert found.keys() == {"baseline.weight", "baseline.bias"}


def test_attached_places_turn_reinforce_off_and_the_classifier_on():
    module = made(attached=True).train()
    found = grads(module, seeded(module, pictures()).log_probs.sum())
    assert all(gradient.abs().max() < 1e-12 for gradient in found.values())
    found = grads(module, F.cross_entropy(seeded(module, pictures()).logits, LABELS))
    assert found["locator.weight"].abs().max() > 1e-4


def test_attached_gradient_is_that_of_the_code_of_the_place():
    """Without ``where`` there is none: what is seen has no derivative in the place."""
    module = made(attached=True).train()
    torch.nn.init.zeros_(module.where.weight)
    found = grads(module, F.cross_entropy(seeded(module, pictures()).logits, LABELS))
    assert not any(name.startswith("locator") for name in found)


def test_gradient_is_the_derivative():
    module = made()
    x, at = pictures(batch=2).requires_grad_(), module.attend(pictures(batch=2))
    inputs = x, *(p for name, p in module.named_parameters() if name.startswith(("what", "carry", "classifier")))
    assert torch.autograd.gradcheck(lambda x, *parameters: module.use(x, at), inputs, fast_mode=True)


# -- REINFORCE --------------------------------------------------------------------------------------------------------

SIGMA, FIRST, STEP = 0.25, 0.0, 0.25


def one_unit(glimpses, **options):
    """It sees one pixel, remembers whether that was bright, looks `STEP` further right then, and answers what it saw
    last."""
    module = create("ram", 1, classes=2, glimpses=glimpses, patch=1, hidden=1, features=1, sigma=SIGMA, **options)
    for name, parameter in module.named_parameters():
        torch.nn.init.constant_(parameter, 1.0 if name in {"what.weight", "from_what.weight", "take.weight"} else 0.0)
    with torch.no_grad():
        module.locator.bias[0] = FIRST
        module.locator.weight[0] = STEP
        module.classifier.weight[1] = 1.0
        module.classifier.bias[0] = 0.5
    return module.double().train()


def bright(mean):
    """The probability that a place drawn around `mean` is in the right half, 0 … 1."""
    normal = torch.distributions.Normal(0.0, 1.0)
    return normal.cdf((1 - mean) / SIGMA) - normal.cdf(-mean / SIGMA)


def expected_reward(glimpses, first, step, seen):
    """Exactly, for a picture whose right half is bright and means 1."""
    if glimpses == 1:
        return bright(first)
    found = bright(first)
    return found * bright(first + step * seen) + (1 - found) * bright(first)


@pytest.mark.parametrize("glimpses", [1, 2])
@pytest.mark.parametrize("hoped", [0.0, 0.6])
def test_reinforce_is_the_gradient_of_the_expected_reward(glimpses, hoped):
    """Whatever the baseline, and through the memory of the first glimpse too."""
    count = 100_000
    x = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(count, 1, 1, 2)
    labels = torch.ones(count, dtype=torch.int64)
    module = one_unit(glimpses, through=True)
    torch.nn.init.constant_(module.baseline.bias, hoped)
    episode = seeded(module, x)
    module.zero_grad()
    (reinforce(episode, labels) - reinforce(episode, labels, weight=0)).backward()

    known = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (FIRST, STEP, 1.0)]
    reward = expected_reward(glimpses, *known)
    exact = torch.autograd.grad(reward, known, allow_unused=True)
    assert correct(episode, labels).item() == pytest.approx(reward.item(), abs=0.01)
    ours = module.locator.bias.grad[0], module.locator.weight.grad[0, 0], module.what.weight.grad[0, 0]
    for estimated, gradient in zip(ours, exact):
        # One play's estimate has a standard deviation of about 4: five of those of the mean are 0.06.
        assert -estimated.item() == pytest.approx(0.0 if gradient is None else gradient.item(), abs=0.06)
    assert exact[0] > 1 and (glimpses == 1 or min(exact[1:]) > 0.1)
    assert abs(module.locator.bias.grad[1]) < 0.06  # up and down nothing is to be won


def test_a_good_baseline_makes_it_less_noisy():
    def spread(hoped):
        module = one_unit(1)
        torch.nn.init.constant_(module.baseline.bias, hoped)
        x = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(50, 1, 1, 2)
        found = []
        for seed in range(200):
            episode = seeded(module, x, seed)
            loss = reinforce(episode, torch.ones(50).long()) - reinforce(episode, torch.ones(50).long(), weight=0)
            found.append(torch.autograd.grad(loss, module.locator.bias)[0][0])
        return torch.stack(found).std()

    assert spread(0.65) < 0.8 * spread(0.0)


def test_the_loss_by_hand():
    logits = torch.tensor([[2.0, 0], [2, 0]])
    episode = Episode(logits, torch.tensor([[-1.0, -2], [-3, -4]]), torch.tensor([[0.25, 0.5], [0.25, 0.5]]))
    labels = torch.tensor([0, 1])  # the first is right
    named = F.cross_entropy(logits, labels)
    policy = -((0.75 * -1 + 0.5 * -2) + (-0.25 * -3 - 0.5 * -4)) / 2
    value = ((0.75**2 + 0.5**2) + (0.25**2 + 0.5**2)) / 2
    torch.testing.assert_close(reinforce(episode, labels), named + policy + value)
    torch.testing.assert_close(reinforce(episode, labels, weight=0.5), named + policy / 2 + value)
    assert reinforce(logits, labels) == named and correct(episode, labels) == correct(logits, labels) == 0.5


def test_several_plays_of_each_picture():
    module, x = made(samples=3).train(), pictures()
    episode = seeded(module, x)
    once = made().train()
    torch.testing.assert_close(episode.logits, seeded(once, x.repeat(3, 1, 1, 1)).logits)
    torch.testing.assert_close(reinforce(episode, LABELS), reinforce(episode, LABELS.repeat(3)))
    assert module.eval()(x).shape == (3, 3)
    with pytest.raises(TypeError, match="torch.Tensor"):
        module.train()(x.numpy())


# -- looking ----------------------------------------------------------------------------------------------------------


def test_chance_follows_the_seed_and_only_in_training():
    module, x = made().train(), pictures()
    draws = [seeded(module.attend, x, seed) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(seeded(module.eval(), x, 1), seeded(module, x, 2))


def test_places_are_spread_as_sigma_says():
    module = made(sigma=0.2).train()
    x = pictures(batch=1).expand(20_000, -1, -1, -1)
    first = seeded(module.attend, x)[:, 0]
    torch.testing.assert_close(first.mean(0), module.locator.bias.detach(), atol=0.01, rtol=0)
    torch.testing.assert_close(first.std(0), torch.full((2,), 0.2).double(), atol=0.006, rtol=0)


def test_switched_off_it_looks_at_the_middle():
    module, x = made(), pictures()
    middle = made(policy="middle")
    with switch_off(module):
        torch.testing.assert_close(module(x), middle(x))
    torch.testing.assert_close(middle(x), module.use(x, torch.zeros(3, 4, 2).double()))
    assert not torch.equal(module(x), middle(x))


def test_other_places_can_be_put_in_their_stead():
    module, x = made(), pictures()
    anywhere = 2 * torch.rand(3, 4, 2, dtype=torch.float64) - 1
    with intervene(module, lambda weights, x, attention: anywhere):
        torch.testing.assert_close(module(x), module.use(x, anywhere))
    with intervene(module, held(anywhere)), record(module) as weights:
        module(x)
    assert torch.equal(weights[""], anywhere)
    with intervene(module, shuffled()):
        assert module(x).shape == (3, 3)
    with pytest.raises(ValueError, match=r"\(3, T, 2\), not \(2, 4, 2\)"):
        module.use(x, anywhere[:2])


def test_a_random_policy_looks_everywhere_and_learns_no_places():
    module = made(policy="random")
    x = pictures(batch=1).expand(5_000, -1, -1, -1)
    places = seeded(module.attend, x)
    assert places.abs().max() <= 1 and places.mean((0, 1)).abs().max() < 0.03
    assert places.var((0, 1)).sub(1 / 3).abs().max() < 0.02
    found = grads(module.train(), reinforce(seeded(module, pictures()), LABELS))
    assert not any(name.startswith("locator") for name in found)


# -- in use -----------------------------------------------------------------------------------------------------------


def strips(count, seed):
    """What matters is at the right edge; the middle is always the same."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=rng)
    images = 0.1 * torch.rand(count, 1, 4, 12, generator=rng)
    images[:, :, :, 9:] += labels[:, None, None, None]
    return images, labels


def test_it_learns_to_look_where_the_answer_is():
    torch.manual_seed(0)
    module = create("ram", 1, classes=2, glimpses=1, patch=4, hidden=16, features=8, sigma=0.3)
    told = dict(loss=reinforce, accuracy=correct, progress=False)
    run = fit(module, strips(1024, 0), strips(256, 1), steps=200, lr=0.02, **told)
    assert run.accuracy > 0.95
    with switch_off(module):
        assert correct(module(strips(256, 1)[0]), strips(256, 1)[1]) < 0.75
    assert module.attend(strips(1, 1)[0])[0, 0, 0] > 0.3


def test_the_description_fits_the_weights():
    module = made()
    about, weights = module.describe(), module.attend(pictures())
    assert about.shape == ("B", *weights.shape[1:]) and len(about.axes) == weights.dim()
    assert not about.drop_in and about.kind == "transform" and about.name == "ram"
    assert torch.equal(module.neutral(pictures(), weights), torch.zeros_like(weights))


def test_copies_stand_on_their_own():
    module, x = made(), pictures()
    twin, loaded = copy.deepcopy(module), pickle.loads(pickle.dumps(module))
    assert torch.equal(twin(x), module(x)) and torch.equal(loaded(x), module(x))


@pytest.mark.parametrize("training", [False, True])
def test_compiles_in_one_graph(training):
    module, x = made().train(training), pictures()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for ours, theirs in zip(seeded(compiled, x), seeded(module, x)):
        torch.testing.assert_close(ours, theirs)


def test_exports():
    module, x = made(), pictures()
    torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), module(x))


def test_an_empty_batch_gives_an_empty_batch():
    module = made()
    assert module(pictures()[:0]).shape == (0, 3)
    assert [tuple(part.shape) for part in module.train()(pictures()[:0])] == [(0, 3), (0, 4), (0, 4)]


def test_pictures_of_a_batch_do_not_see_each_other_and_are_left_as_they_were():
    module, x = made(), pictures()
    before = x.clone()
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]))
    torch.testing.assert_close(module(x.contiguous(memory_format=torch.channels_last)), module(x))
    assert torch.equal(x, before)


@pytest.mark.parametrize("training", [False, True])
def test_half_precision_does_not_move_the_places(training):
    module, x = made().float().train(training), pictures().float()
    with torch.autocast("cpu", torch.bfloat16):
        at = seeded(module.attend, x)
        outputs = seeded(module, x)
    assert at.dtype == torch.float32
    if training:
        assert outputs.log_probs.dtype == torch.float32
        assert reinforce(outputs, LABELS).isfinite()
    exact = module.states(x, at).bfloat16()
    torch.testing.assert_close(module.bfloat16().states(x.bfloat16(), at), exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("spoil, error, says", [
    (lambda x: (x * 255).to(torch.uint8), TypeError, "floating-point"), (lambda x: x[:, :-1], ValueError, "2 channels"),
    (lambda x: x[0], ValueError, "(B, C, H, W)"), (lambda x: x[..., :0], ValueError, "at least one pixel"),
])
def test_bad_input_is_refused_in_one_sentence(spoil, error, says):
    with pytest.raises(error) as refused:
        made()(spoil(pictures()))
    assert says in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("options, says", [
    ({"classes": 0}, "classes is a whole number"), ({"glimpses": 0}, "glimpses is a whole number"),
    ({"patch": 1.5}, "patch is a whole number"), ({"locator_hidden": 0}, "locator_hidden is a whole number"),
    ({"samples": 0}, "samples is a whole number"), ({"sigma": 0}, "sigma is above 0"),
    ({"sigma": math.nan}, "sigma is above 0"), ({"gain": 0}, "gain is above 0"),
    ({"sigma": "wide"}, "sigma is above 0 and finite, not 'wide'"), ({"fill": "grey"}, "fill is a finite number"),
    ({"policy": "fixed"}, "one of learned, random, middle"),
])
def test_bad_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        create("ram", 1, **options)
