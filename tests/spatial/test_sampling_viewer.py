import base64

import numpy as np
import pytest
import torch
from torch import nn

from attnlib import create, fit
from attnlib.spatial.sampling_viewer import SIDE, sampling_viewer
from attnlib.spatial.transforms import transform


def network(**options):
    torch.manual_seed(0)
    stn = create("stn", 1, features=8, **options)
    return nn.Sequential(stn, nn.Flatten(), nn.Linear(8 * 12, 3))


def pictures(count=40):
    return torch.rand(count, 1, 8, 12, generator=torch.Generator().manual_seed(0))


def numbers(packed):
    return np.frombuffer(base64.b64decode(packed["f"]), "<f4").reshape(packed["shape"])


def trained(net, some, steps=6):
    images = pictures()
    return fit(net, (images, torch.arange(40) % 3), steps=steps, every=2, batch=8, record=some, progress=False)


@pytest.mark.parametrize("family", ["affine", "thin_plate", "rotation"])
def test_it_holds_the_maps_of_every_recorded_step(family):
    net, some = network(transform=family), pictures(3)
    run = trained(net, some)
    viewer = sampling_viewer(net, some, run)
    lattices = numbers(viewer.data["lattices"])
    assert viewer.data["steps"] == [0, 2, 4, 6] and lattices.shape == (4, 3, SIDE, SIDE, 2)
    line = np.linspace(-1, 1, SIDE, dtype=np.float32)
    identity = np.stack(np.meshgrid(line, line), -1)
    np.testing.assert_allclose(lattices[0], np.broadcast_to(identity, lattices[0].shape), atol=1e-6)
    with torch.no_grad():
        last = transform(family)(net[0].attend(some), torch.from_numpy(identity.reshape(-1, 2).copy()))
    np.testing.assert_allclose(lattices[-1].reshape(3, -1, 2), last.numpy(), atol=1e-5)
    assert np.abs(lattices[-1] - lattices[0]).max() > 1e-3


def test_without_a_run_it_shows_the_network_as_it_is():
    net = network()
    net.train()
    viewer = sampling_viewer(net, pictures(2), truth=torch.tensor([[0.5, 0, 0.1, 0, 0.5, 0]] * 2), labels=["a", "b"])
    assert viewer.data["steps"] == [0] and viewer.data["names"] == ["a", "b"] and net.training
    truth = numbers(viewer.data["truth"])
    np.testing.assert_allclose(truth[0, 0, 0], [-0.4, -0.5], atol=1e-6)
    assert viewer.data["size"] == [8, 12] and "dashed" in viewer.alt


def test_the_network_may_have_two_and_one_is_named():
    net = nn.Sequential(create("stn", 1), create("stn", 1, size=4))
    with pytest.raises(ValueError, match="2 spatial transformers"):
        sampling_viewer(net, pictures(2))
    assert sampling_viewer(net, pictures(2), only="1").data["size"] == [4, 4]
    with pytest.raises(ValueError, match="0 spatial transformers called '2'"):
        sampling_viewer(net, pictures(2), only="2")


def test_wrong_arguments_are_told():
    net, some = network(), pictures(3)
    with pytest.raises(ValueError, match="0 spatial transformers"):
        sampling_viewer(nn.Flatten(), some)
    with pytest.raises(ValueError, match="2 truth for 3"):
        sampling_viewer(net, some, truth=torch.zeros(2, 6))
    with pytest.raises(ValueError, match=r"6 coefficients each, \(3, 6\), not \(3, 5\)"):
        sampling_viewer(net, some, truth=torch.zeros(3, 5))
    with pytest.raises(ValueError, match="'network' or 'identity', not 'end'"):
        sampling_viewer(net, some, start="end")
    with pytest.raises(ValueError, match="1 labels for 3"):
        sampling_viewer(net, some, labels=["a"])
    bare = fit(net, (pictures(), torch.arange(40) % 3), steps=2, batch=8, progress=False)
    with pytest.raises(ValueError, match="as record="):
        sampling_viewer(net, some, bare)
    with pytest.raises(ValueError, match="for 3 pictures, not for 2"):
        sampling_viewer(net, some[:2], trained(net, some, 2))
