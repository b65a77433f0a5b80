"""A batch over several devices: the numbers of one device, and the collectives that it costs."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from channel_grad import scale_by_sobolev
from experiments.data import digits
from experiments.data.dataset import Dataset, Split
from experiments.system.errors import ConfigError
from experiments.tasks.supervised import classification
from experiments.training import averaging
from experiments.training.config import Length
from experiments.training.execution import Executor, Plan, batches
from experiments.training.sharding import BatchSharding
from tests.experiments.training import autoencoder, tiny_gan

BATCH = 16


class Net(nn.Module):
    normalized: bool = True

    @nn.compact
    def __call__(self, x, train):
        for features in (8, 8):
            x = nn.Conv(features, (3, 3))(x)
            if self.normalized:
                x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            x = nn.relu(x)
        return nn.Dense(3)(x.mean((1, 2)))


def dataset():
    rng = np.random.default_rng(0)

    def split(count):
        labels = rng.integers(0, 3, count).astype(np.int32)
        images = rng.integers(0, 120, (count, 6, 6, 1)) + 60 * labels[:, None, None, None]
        return Split(images.astype(np.uint8), labels)

    return Dataset("made", split(100), split(53), ("a", "b", "c"), "made here")


DATASET = dataset()


def executor(parts=None, statistics="global", normalized=True, plan=None):
    optimizer = optax.chain(scale_by_sobolev(), optax.sgd(0.1, 0.9))
    task = classification(Net(normalized), DATASET, optimizer, lambda step: 0.1)
    sharding = parts and BatchSharding.over(jax.devices()[:parts], statistics)
    return Executor(task, DATASET, BATCH, plan or Plan(1, False), sharding)


def trained(executor, steps=8):
    state = executor.initial_state(3)
    done = 0
    with executor.reading(batches(3, len(DATASET.train), BATCH, 0)) as order:
        while done < steps:
            count = min(executor.plan.steps_per_dispatch, steps - done)
            state = executor.train(state, order, count, 3)
            done += count
    return state


def close(a, b, tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("plan", [Plan(1, False), Plan(4, True), Plan(4, False, read_ahead=2)])
def test_global_statistics_give_the_numbers_of_one_device(plan):
    alone, shared = executor(), executor(8, plan=plan)
    a, b = trained(alone), trained(shared)
    close(a, b, 2e-5)
    assert alone.training_metrics(a)["accuracy"] == shared.training_metrics(b)["accuracy"]
    # 53 test examples: the last batch is padded, and so is what each device takes.
    one, all_8 = (e.evaluate(s, DATASET.test) for e, s in ((alone, a), (shared, b)))
    assert one["accuracy"] == all_8["accuracy"]
    assert one["loss"] == pytest.approx(all_8["loss"], 1e-4)


def test_local_statistics_average_gradients_and_running_statistics():
    """Without normalization the parts of a batch do not meet, so the numbers are those of one."""
    plain = executor(normalized=False), executor(4, "local", normalized=False)
    close(trained(plain[0]), trained(plain[1]), 2e-5)

    # With it: the step written out, part by part.
    local = executor(4, "local")
    start = executor().initial_state(3)
    chosen = next(batches(3, len(DATASET.train), BATCH, 0))
    parts = chosen.reshape(4, BATCH // 4)
    task, model = local.task, Net()

    def loss_fn(params, part):
        logits, collections = model.apply(
            {"params": params, **start.state.collections},
            task.normalize(jnp.asarray(DATASET.train.examples[part])),
            train=True, mutable=["batch_stats"],
        )  # fmt: skip
        return jnp.mean(task.loss(logits, DATASET.train.labels[part])), collections

    each = [jax.grad(loss_fn, has_aux=True)(start.state.params, part) for part in parts]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 4, *each)
    updates, _ = task.optimizer.update(mean[0], start.state.opt_state, start.state.params)
    after = local.train(local.initial_state(3), iter([chosen]), 1, 3)
    close(after.state.params, optax.apply_updates(start.state.params, updates), 1e-5)
    close(after.state.collections, mean[1], 1e-5)
    assert int(after.sums["count"]) == BATCH


def collectives(executor):
    """{kind of collective: how many} in the compiled training step."""
    text = executor.lowered(executor.initial_state(0), 1, 0).compile().as_text()
    names = re.findall(
        r" (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)\(", text
    )
    return {name: names.count(name) for name in set(names)}


def test_what_a_step_communicates():
    local, shared = collectives(executor(4, "local")), collectives(executor(4, "global"))
    assert set(local) == set(shared) == {"all-reduce"}
    assert local["all-reduce"] <= 2 < shared["all-reduce"]


def test_two_networks_stay_equal_on_all_devices():
    """Both steps of a GAN average their gradients."""
    data = tiny_gan.with_label_maps(digits.load(), None)
    config = tiny_gan.GanConfig(length=Length(batch_size=8, epochs=1))
    task, _ = tiny_gan.build(config, data)
    shared = Executor(task, data, 8, Plan(1, False), BatchSharding.over(jax.devices()[:2], "local"))
    state = shared.train(shared.initial_state(0), batches(0, len(data.train), 8, 0), 2, 0)
    for leaf in jax.tree.leaves(state):
        first, second = (np.asarray(part.data) for part in leaf.addressable_shards)
        np.testing.assert_array_equal(first, second)
    assert int(state.sums["count"]) == 16
    assert np.isfinite(shared.evaluate(state, data.test)["frechet_distance"])


def test_a_task_that_takes_its_gradients_elsewhere_is_refused_local_statistics():
    data = digits.load()
    task, length = autoencoder.build(autoencoder.AutoencoderConfig(), data)
    sharding = BatchSharding.over(jax.devices()[:2], "local")
    shared = Executor(task, data, length.batch_size, Plan(1, False), sharding)
    order = batches(0, len(data.train), length.batch_size, 0)
    with pytest.raises(ConfigError, match="^batch_statistics: got local; accepted: global"):
        shared.train(shared.initial_state(0), order, 1, 0)


def test_integers_are_added_exactly():
    devices = jax.devices()[:4]
    mesh = jax.sharding.Mesh(np.array(devices), ("batch",))
    values = np.array([2**24 + 1, 7, -3, 2**20 + 5], np.int32)

    def total(x):
        return averaging.gather({}, {"n": x[0]}, "batch")[1]["n"]

    spec = jax.sharding.PartitionSpec
    summed = jax.shard_map(total, mesh=mesh, in_specs=spec("batch"), out_specs=spec())(values)
    assert int(summed) == values.sum()


def test_what_is_refused():
    with pytest.raises(ConfigError, match="^batch_size: got 16; accepted: a multiple of the 3 dev"):
        executor(3)
    with pytest.raises(ConfigError, match="^batch_statistics: got x; accepted: global, local"):
        executor(4, "x")
