"""Counting what a compiled program launches: a text with known counts, and programs of this CPU."""

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmarks import hlo

TEXT = """HloModule jit_f, is_scheduled=true

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %n = f32[4]{0} negate(%p)
}

%small (t: (s32[], f32[4])) -> (s32[], f32[4]) {
  %t = (s32[], f32[4]{0}) parameter(0)
  %a = f32[4]{0} get-tuple-element(%t), index=1
  %i = s32[] get-tuple-element(%t), index=0
  ROOT %r = (s32[], f32[4]{0}) tuple(%i, %a)
}

%large (t.1: (s32[], f32[4])) -> (s32[], f32[4]) {
  %t.1 = (s32[], f32[4]{0}) parameter(0)
  %a.1 = f32[4]{0} get-tuple-element(%t.1), index=1
  %b.1 = f32[4]{0} fusion(%a.1), kind=kLoop, calls=%fused
  %s.1 = (f32[4]{0}, s8[16]{0}) custom-call(%b.1), custom_call_target="cusolver$potrf"
  %c.1 = f32[4]{0} copy(%b.1)
  %i.1 = s32[] get-tuple-element(%t.1), index=0
  ROOT %r.1 = (s32[], f32[4]{0}) tuple(%i.1, %c.1)
}

%until (t.2: (s32[], f32[4])) -> pred[] {
  %t.2 = (s32[], f32[4]{0}) parameter(0)
  %i.2 = s32[] get-tuple-element(%t.2), index=0
  ROOT %q = pred[] fusion(%i.2), kind=kLoop, calls=%fused
}

%step (t.3: (s32[], f32[4])) -> (s32[], f32[4]) {
  %t.3 = (s32[], f32[4]{0}) parameter(0)
  %a.3 = f32[4]{0} get-tuple-element(%t.3), index=1
  %v.3 = (f32[4]{0}, u8[0]{0}) custom-call(%a.3), custom_call_target="__cudnn$convForward"
  %g.3 = f32[4]{0} get-tuple-element(%v.3), index=0
  %h.3 = f32[4]{0} all-reduce(%g.3), replica_groups={}, to_apply=%fused
  %i.3 = s32[] get-tuple-element(%t.3), index=0
  %k.3 = (s32[], f32[4]{0}) conditional(%i.3, %t.3, %t.3), branch_computations={%small, %large}
  ROOT %w.3 = (s32[], f32[4]{0}) while(%k.3), condition=%until, body=%large
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %zero = s32[] constant(0)
  %y = f32[4]{0} copy(%x)
  %t.4 = (s32[], f32[4]{0}) tuple(%zero, %y)
  %w = (s32[], f32[4]{0}) while(%t.4), condition=%until, body=%step, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %out = f32[4]{0} get-tuple-element(%w), index=1
}
"""  # noqa: E501


def test_launches_are_counted_through_loops_and_branches():
    entry = hlo.read(TEXT)
    assert entry.launches == {"copy": 1}
    step = entry.longest_loop()
    assert step.trips == 5
    # A convolution and an all-reduce; the longer branch; one run of the loop of unknown length.
    assert step.body.summary() == {
        "launches": 2 + 3 + 3,
        "convolutions": 1,
        "other_library_calls": 2,
        "copies": 2,
        "collectives": 1,
        "conditionals": 1,
        "unknown_loops": 1,
    }
    assert entry.summary()["launches"] == 1 + 5 * 8


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.read("nothing")


def test_a_scan_has_a_known_length_and_a_while_loop_until_convergence_has_not():
    def scanned(x):
        return jax.lax.scan(lambda c, _: (jnp.sin(c) @ c, None), x, length=7)[0]

    def until(x):
        return jax.lax.while_loop(lambda c: jnp.sum(c) > 1e-3, lambda c: jnp.sin(c) @ c, x)

    parts = [
        hlo.read(jax.jit(f).lower(jnp.ones((8, 8))).compile().as_text()) for f in (scanned, until)
    ]
    assert [part.unknown_loops() for part in parts] == [0, 1]
    assert parts[0].longest_loop().trips == 7
    assert parts[1].longest_loop() is None
