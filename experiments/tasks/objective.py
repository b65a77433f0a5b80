"""A supervised task whose optimizer sees the objective itself and not only its gradient."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from experiments.tasks.supervised import Supervised
from experiments.training.networks import Network
from experiments.training.task import Batch, Keys, Sums


@dataclasses.dataclass(frozen=True, eq=False)
class Objective(Supervised):
    """`Supervised` for optimizers with a line search, a Hessian or no gradient at all.

    The optimizer gets, besides the gradient, `value`, `grad` and `value_fn` as optax's line
    searches name them (the objective is loss + penalty over the batch), and `key`, a random key of
    the step. It may be any optax optimizer; one that needs none of this ignores it.

    Attributes:
      penalty_in_gradient: false where the optimizer takes the penalty's proximal step itself; the
        penalty is recorded in any case.
    """

    penalty_in_gradient: bool = True

    def init(self, rng: jax.Array) -> Network:
        # optax.lbfgs puts one array into two places of its state; the engine donates each buffer.
        return jax.tree.map(jnp.copy, super().init(rng))

    def train_step(self, state: Network, batch: Batch, rng: Keys) -> tuple[Network, Sums]:
        examples, labels = self.augment(rng.augmentation, *batch)
        count, inputs = len(examples), self.normalize(examples)

        def objective(params):
            outputs, collections = self.model.apply(
                {"params": params, **state.collections},
                inputs,
                train=True,
                mutable=list(state.collections),
                rngs={"dropout": rng.dropout},
            )
            loss = jnp.mean(self.loss(outputs, labels))
            penalty = jnp.float32(0) if self.penalty is None else self.penalty(params)
            statistics = self.statistics(outputs, labels, jnp.ones(count, bool))
            sums = {"loss": loss * count, "penalty": penalty * count, "count": jnp.int32(count)}
            total = loss + penalty if self.penalty_in_gradient else loss
            return total, (collections, {**sums, "statistics": statistics})

        def value_fn(params, key=None):  # optax's line searches pass on every extra argument.
            del key
            return objective(params)[0]

        compute = jax.value_and_grad(objective, has_aux=True)
        (value, (collections, sums)), gradient = compute(state.params)
        updates, opt_state = optax.with_extra_args_support(self.optimizer).update(
            gradient,
            state.opt_state,
            state.params,
            value=value,
            grad=gradient,
            value_fn=value_fn,
            key=rng.dropout,
        )
        params = optax.apply_updates(state.params, updates)
        norms = [optax.tree.norm(tree) for tree in (gradient, state.params, updates)]
        norms = jnp.stack(norms).astype(jnp.float32)
        return Network(params, dict(collections), opt_state, norms), sums
