"""Played over made-up texts, the planner ends up with the rounds that suit the drafter and the text."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.budget.calibration import AGREES, DECAY, DISAGREES, PRIOR, UNASKED
from mlx_ddtree.budget.copies import FAINTEST, LONGEST_COPY, MOST_PLACES, Copies
from mlx_ddtree.budget.planner import Planner
from mlx_ddtree.budget.profile import ParityBounds, Profile
from mlx_ddtree.budget.proposal import Outcome
from mlx_ddtree.budget.suffixes import END, SuffixIndex
from mlx_ddtree.tree import accept
from mlx_ddtree.tree.lattice import Candidates

from ..tree.trees import prefixes_of
from .machines import BLOCKS, cost_table

VOCAB = 50_000
BLOCK = BLOCKS[-1]
RNG = np.random.default_rng(0)
NEWS = RNG.integers(0, VOCAB, 2000).tolist()  # no pair of tokens comes twice
REFRAIN = RNG.integers(0, VOCAB, 200).tolist() * 8


def new_planner(cost=None, **options):
    return Planner(Profile(cost or cost_table(), ParityBounds(), BLOCK), greedy=True, **options)


BEFORE = list(range(900, 930))


def copied(planner, path, match):
    """What the planner recalls of a text in which `path`, and nothing else, stood behind its last `match` tokens."""
    text = [*BEFORE[-match:], *path, END, *BEFORE[-match:]]
    planner.copies = Copies(planner.profile.lookups)
    return planner.copies.after(text, beside_drafter=False)


def believe(planner, ratio=1.0):
    """Make the pair's copies hit so often per expected hit, wherever they come from."""
    planner.profile.lookups.expected[:] = 1000.0
    planner.profile.lookups.hits[:] = 1000.0 * ratio


def drafter(right):
    """Drafts whose first `right` positions are right, and which is equally sure of all of them."""

    def draft(text, place, block_size, top_k):
        token_ids = np.arange(VOCAB, VOCAB + top_k, dtype=np.int32) + np.zeros((block_size - 1, 1), np.int32)
        follow = text[place + 1 : place + 1 + min(right, block_size - 1)]
        token_ids[: len(follow), 0] = follow
        chances = np.array([0.9, *np.full(top_k - 1, 0.1 / 16)], np.float32)
        return Candidates(token_ids, np.log(chances) + np.zeros(token_ids.shape, np.float32))

    return draft


def play(planner, text, draft):
    """(kind, tokens emitted, proposal) of each round until the text ends; a pause is one round."""
    cost, place, rounds = planner.profile.cost, 0, []
    while place < len(text) - 1:
        copy = planner.copy_after(text[: place + 1])
        proposal, drafting = planner.without_draft(text[place], copy, place), 0.0
        if proposal is None and (pause := planner.pause(place)):
            start = place
            place += 1
            while place < min(start + pause, len(text) - 1):
                if planner.ends_plain_run(text[:place], place):
                    place += 1
                    break
                place += 1
            rounds.append(("plain", place - start, None))
            continue
        if proposal is None:
            block_size = planner.next_block_size(place)
            drafting = cost.drafting(block_size)
            candidates = draft(text, place, block_size, planner.top_k)
            proposal = planner.with_draft(text[place], candidates, copy, place)
        follow = dict(enumerate(text[place + 1 :]))
        chosen = [follow.get(d, -1) for d in proposal.tree.depths.tolist()]
        path = accept(proposal.tree, chosen)
        verify = float(np.interp(len(proposal.tree), cost.rows, cost.verification(place, proposal.tree.is_chain)))
        planner.learn(proposal, Outcome([chosen[n] for n in path], place, verify + drafting, verify, drafting))
        rounds.append((proposal.kind, len(path), proposal))
        place += len(path)
    return rounds


def shares(rounds):
    """Of the text's tokens, by kind of round."""
    tokens = Counter()
    for kind, emitted, _ in rounds:
        tokens[kind] += emitted
    return {kind: count / tokens.total() for kind, count in tokens.items()}


def test_a_perfect_drafter_gets_large_trees_and_no_pause():
    rounds = play(new_planner(), NEWS, drafter(BLOCK))
    assert shares(rounds) == {"draft": 1.0}
    assert all(emitted == BLOCK and len(p.tree) >= BLOCK for _, emitted, p in rounds[5:-1])


def test_a_drafter_that_is_right_twice_gets_small_trees():
    """Rows cost something here, and deep nodes have stopped to be believed."""
    rounds = play(new_planner(cost_table(per_row=0.1)), NEWS, drafter(2))
    assert all(len(p.tree) < 8 for _, _, p in rounds[-20:])
    assert np.mean([emitted for _, emitted, _ in rounds[-100:]]) > 2.5


def test_a_useless_drafter_mostly_rests():
    """And is tried again as soon as the try is paid for: one that costs little, after few tokens."""
    rounds = play(new_planner(), NEWS, drafter(0))
    assert shares(rounds)["plain"] > 0.5
    assert any(kind == "draft" for kind, _, _ in rounds[-4:])


def test_a_chain_is_verified_where_branches_cost_more_than_they_bring():
    """A chain of as many rows is cheaper than a tree here; a drafter that is right gets it."""
    cost = cost_table(per_row=0.2)
    cost.chain = [[1.0] * len(cost.rows)]
    rounds = play(new_planner(cost), NEWS, drafter(6))
    assert all(p.tree.is_chain for _, _, p in rounds[20:-1])
    assert np.mean([emitted for _, emitted, _ in rounds[20:-1]]) > 6.5


def test_a_drafter_that_fails_in_this_text_rests_soon():
    """Whatever it was worth in others."""
    planner = new_planner(cost_table(draft_share=0.5))
    play(planner, NEWS, drafter(BLOCK))
    planner = Planner(planner.profile, greedy=True)
    rounds = play(planner, NEWS[:100], drafter(0))
    assert next(i for i, (kind, _, _) in enumerate(rounds) if kind == "plain") <= 8


def test_a_text_that_repeats_itself_is_copied():
    rounds = play(new_planner(cost_table(draft_share=0.5)), REFRAIN, drafter(2))
    assert shares(rounds)["lookup"] > 0.6
    assert all(p.tree.is_chain and p.candidates is None for kind, _, p in rounds if kind == "lookup")


def test_a_pause_ends_where_the_text_repeats_itself():
    """A copy is worth a look at every token of a pause; a draft is not."""
    planner = new_planner(cost_table(draft_share=0.5))
    play(planner, NEWS[:300], drafter(0))
    text = NEWS[:300] + REFRAIN
    planner.copy_after(text[:520])
    assert planner.without_draft(text[519], planner.copy_after(text[:520]), 519) is not None


def test_a_copy_may_come_from_any_part_of_the_text_that_is_given():
    """Also from what came before this call: a planner that is new to a long text sees all of it at once."""
    earlier = NEWS[:200]
    copy = new_planner().copy_after([*earlier, *REFRAIN[:100], *earlier[50:60]])
    assert copy.best_path(LONGEST_COPY) == earlier[60 : 60 + LONGEST_COPY]
    assert copy.matches == [10]


@pytest.mark.parametrize("text", [NEWS, REFRAIN])
def test_linear_means_chains_and_no_copies(text):
    planner = new_planner(linear=True)
    assert planner.top_k == 1
    rounds = play(planner, text, drafter(3))
    assert all(kind == "draft" and p.tree.is_chain and p.copy is None for kind, _, p in rounds if kind != "plain")
    assert shares(rounds)["draft"] > 0.5


def test_a_copy_that_the_drafter_lacks_enters_the_tree_as_a_path():
    """It may go on behind the block."""
    planner = new_planner(cost_table(per_row=0.0))
    planner.policy.choose(np.arange(100.0), 0)  # earlier trees were large
    path = list(range(100, 100 + BLOCK + 4))
    believe(planner)
    candidates = drafter(0)(NEWS, 0, BLOCK, planner.top_k)
    copy = copied(planner, path, 20)
    planner.copies.going_on.update(expected=9000.0, hits=9000.0)  # copies went on for long in this text
    proposal = planner.with_draft(7, candidates, copy, 0)
    assert proposal.kind == "draft" and proposal.tree.token_ids[0] == 7
    assert tuple(path) in prefixes_of(proposal.tree)
    drafted = [prefix for prefix in prefixes_of(proposal.tree) if prefix[-1] >= VOCAB]
    assert {prefix[0] for prefix in drafted} > {path[0], VOCAB}  # the drafter's, alone and along the copy


def test_a_copy_alone_is_a_chain_of_what_it_is_worth():
    """Its weights are those of its calibrated chances, behind its first token times those that copies go on in this text;
    it ends where it has become improbable, however cheap rows are."""
    planner = new_planner(cost_table(per_row=0.0))
    planner.policy.drafted.add(1.0, 1.5)
    believe(planner, 0.55)
    copy = copied(planner, [1, 2, 3, 4, 5, 6, 7, 8], 2)
    proposal = planner.without_draft(7, copy, 0)
    chances = []
    for token in [1, 2, 3, 4, 5, 6, 7, 8]:
        chances += planner.profile.lookups.apply(copy.matches, copy.chances, [2])
        copy = copy.after(token)
    path = np.cumprod([chances[0], *(planner.copies.going_on.factor * np.array(chances[1:]))])
    path = path[path >= FAINTEST]
    assert 0 < len(path) < 8
    assert proposal.tree.token_ids.tolist() == [7, 1, 2, 3, 4, 5, 6][: len(path) + 1]
    np.testing.assert_allclose(np.exp(proposal.tree.log_weights[1:]), path, rtol=1e-6)
    assert proposal.choice.expected == pytest.approx(path.sum())


def test_what_followed_in_several_ways_is_copied_as_a_tree():
    """Each branch conditioned on its own path."""
    memory = SuffixIndex([5, 6, 7, 8, 1, 2, END, 5, 6, 7, 8, 3, 4, END])
    planner = new_planner(cost_table(per_row=0.0), memory=[memory])
    planner.policy.drafted.add(1.0, 1.5)
    proposal = planner.without_draft(8, planner.copies.after([9, 5, 6, 7, 8], beside_drafter=False), 0)
    assert {(1,), (1, 2), (3,), (3, 4)} <= prefixes_of(proposal.tree).keys()
    assert {(1, 4), (3, 2)}.isdisjoint(prefixes_of(proposal.tree))


def test_a_round_looks_up_a_bounded_number_of_places():
    """However many ways memory knows."""
    memory = SuffixIndex(RNG.integers(0, 3, 5000).tolist())
    planner = new_planner(memory=[memory])
    believe(planner, 2.0)
    copy = planner.copies.after([0, 1, 2, 1], beside_drafter=False)
    planner.copies.lattice(copy)
    todo, places = [copy], 0
    while todo:
        place = todo.pop()
        places += 1
        todo += place._after.values()
    assert places <= MOST_PLACES + 1


@pytest.mark.parametrize("kind", ["ddtree", "dflash"])
def test_without_a_drafter_rounds_copy_or_are_plain(kind):
    """Trees, or chains for 'dflash'; what does not repeat itself is decoded plainly."""
    cost = replace(cost_table(), draft={})
    planner = Planner(Profile(cost, ParityBounds(), 1), greedy=True, linear=kind == "dflash")
    rounds = play(planner, [*NEWS[:300], *REFRAIN], None)
    assert shares(rounds).keys() == {"plain", "lookup"}
    assert shares(rounds)["lookup"] > 0.6
    assert all(p.candidates is None for kind, _, p in rounds if kind == "lookup")
    assert kind == "ddtree" or all(p.tree.is_chain for _, _, p in rounds if p is not None)
    assert sum(emitted for _, emitted, _ in rounds) / sum(p is not None or n for _, n, p in rounds) > 1.0


def test_without_a_drafter_texts_that_lie_are_decoded_plainly():
    """What followed earlier says nothing: a text loses a few steps of plain decoding at most."""
    cost = replace(cost_table(per_row=0.5), draft={})
    planner = Planner(Profile(cost, ParityBounds(), 1), greedy=True)
    text = RNG.integers(0, 4, 2000).tolist()
    rounds = play(planner, text, None)
    seconds = sum(n if p is None else p.choice.seconds for _, n, p in rounds)
    assert seconds <= 1.03 * (len(text) - 1)


def test_copies_that_lie_do_not_replace_a_good_drafter():
    """Every pair of tokens stood there before, and what followed says nothing."""
    text = RNG.integers(0, 4, 1000).tolist()
    assert shares(play(new_planner(), text, drafter(BLOCK)))["draft"] > 0.9


@given(st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=8))
def test_a_copy_is_looked_up_in_the_whole_text_so_far(pieces):
    planner, text = new_planner(), []
    for piece in pieces:
        text += piece
        copy = planner.copy_after(text)
        fresh = new_planner().copy_after(text)
        assert (copy and (copy.token_ids, copy.chances)) == (fresh and (fresh.token_ids, fresh.chances))


def hand_made(planner, copy=None):
    """A proposal from three positions of two candidates each."""
    log_probs = np.log([[0.5, 0.3], [0.6, 0.2], [0.7, 0.1]]).astype(np.float32)
    return planner.with_draft(0, Candidates(np.array([[1, 2], [3, 4], [5, 6]], np.int32), log_probs), copy, 0)


def learn(planner, chosen, copy=None):
    """Such a round, of which the target chose `chosen`."""
    planner.learn(hand_made(planner, copy), Outcome(chosen, 0, 1.8, 1.5, 0.2))


def test_trees_are_weighed_by_the_calibration():
    """Paths off the spine count less."""
    weights = prefixes_of(hand_made(new_planner(cost_table(per_row=0.0))).tree)
    np.testing.assert_allclose(np.exp([weights[1, 3], weights[2, 3]]), [0.5 * 0.6, 0.3 * 0.6 * PRIOR[1]], rtol=1e-5)


def test_a_round_refines_the_costs_of_what_it_did():
    planner = new_planner(cost_table(per_row=0.0))
    proposal = hand_made(planner)
    cost, before = planner.profile.cost, cost_table(per_row=0.0)
    planner.learn(proposal, Outcome([1, 3], 0, 1.8, 1.5, 0.2))
    assert cost.verification(0) == before.verification(0)  # it is not known how fast the machine is
    for _ in range(12):
        planner.learn(proposal, Outcome([1, 3], 0, 1.8, 1.5, 0.2))
    seconds = cost.verification(0)
    assert seconds[0] != 1 and len(set(seconds)) == 1  # what is known of one size is all that is known of the others
    for block in BLOCKS:  # a draft took a seventh of a verification, not a fortieth
        assert cost.drafting(block) / seconds[0] > 1.5 * before.drafting(block)
    assert 0 < cost.round < 0.1 + 1e-9
    assert cost.step(0) <= seconds[0]  # a step of plain decoding cannot take longer


def test_rounds_are_counted_for_the_profiles_file_and_never_write_it(tmp_path):
    planner = new_planner()
    planner.profile.path = tmp_path / "pair.json"
    for _ in range(300):
        learn(planner, [1, 3])
    assert planner.profile.rounds_unsaved == 300
    assert not planner.profile.path.exists()


def test_a_given_block_size_is_used():
    assert new_planner(block_size=8).next_block_size(0) == 8


@pytest.mark.parametrize(
    ("chosen", "spine", "off_spine", "seen_off_spine"),
    [
        ([1, 3, 5, 9], [1, 1, 1], [0, 0, 0], [0, 0, 0]),
        ([2, 3, 9], [1, 0, 0], [0, 1, 0], [0, 1, 1]),
        ([1, 4, 5], [1, 1, 0], [0, 0, 1], [0, 0, 1]),
        ([9, 3, 5], [0, 0, 0], [0, 1, 1], [0, 1, 1]),  # a copy led on
        ([1], [1, 0, 0], [0, 0, 0], [0, 0, 0]),
    ],
)
def test_outcomes_count_off_the_spine_once_another_than_the_best_was_right(chosen, spine, off_spine, seen_off_spine):
    """The node that was left is itself on the spine; what follows it is not, even if its best is right."""
    planner = new_planner()
    learn(planner, chosen)
    hits, expected = planner.calibration.hits.sum(axis=-1), planner.calibration.expected.sum(axis=-1)
    assert hits[:, :3].tolist() == [spine, off_spine]
    reached = np.arange(3) < len(chosen)
    np.testing.assert_allclose(expected[1, :3] > 0, seen_off_spine)
    np.testing.assert_allclose(expected[0, :3] > 0, reached & ~np.array(seen_off_spine, bool))


def test_a_copy_is_judged_up_to_its_first_mistake():
    """By whether the drafter's best agreed: yes, no, not asked behind its block."""
    planner = new_planner()
    lookups = planner.profile.lookups
    believe(planner)
    before = lookups.expected.copy(), lookups.hits.copy()
    learn(planner, [1, 4, 5, 8, 7], copied(planner, [1, 4, 5, 9, 7], 9))
    hits = lookups.hits - DECAY * before[1]
    expected = lookups.expected - DECAY * before[0]
    assert hits.sum((0, 1)).round(6).tolist() == [2, 1, 0]  # 1 and 5 agree, 4 does not; 9 was wrong, and 7 not reached
    assert (expected.sum((0, 1)) > 1e-6).tolist() == [True, True, True]
    assert expected.sum() == pytest.approx(4 * 0.99, rel=0.02)


def test_greedy_and_sampled_choices_are_calibrated_apart():
    profile = Profile(cost_table(), ParityBounds(), BLOCK)
    greedy, sampled = (Planner(profile, greedy=greedy) for greedy in (True, False))
    learn(greedy, [1, 3])
    assert greedy.calibration.hits.any() and not sampled.calibration.hits.any()
    assert Planner(profile, greedy=True).calibration is greedy.calibration


def test_a_drafter_that_was_never_asked_is_asked_soon():
    """Copies must not starve it, however many the text offers."""
    text = np.random.default_rng(1).integers(0, 4, 1500).tolist()
    planner, asked = new_planner(), 0
    for place in range(1000, 1200):  # the prompt has every pair of tokens
        proposal = planner.without_draft(text[place], planner.copy_after(text[: place + 1]), place)
        asked += proposal is None
        if proposal:
            planner.learn(proposal, Outcome(text[place + 1 : place + 2], place, 1.0, 1.0, 0.0))
    assert asked


PAIR_TOKENS = np.array([[1, 2], [3, 4], [5, 6]], np.int32)
PAIR_CHANCES = np.array([
    [[0.5, 0.3], [0.5, 0.3]],  # after the root
    [[0.1, 0.6], [0.7, 0.2]],  # after 1, after 2
    [[0.4, 0.2], [0.1, 0.8]],  # after 3, after 4
])  # fmt: skip
"""The best path is 1 4 6."""


def pairs(planner, copy=None):
    candidates = Candidates(PAIR_TOKENS, np.log(PAIR_CHANCES).astype(np.float32))
    return planner.with_draft(0, candidates, copy, 0)


def test_trees_of_pairs_are_weighed_by_the_parent_and_the_calibration():
    """On the best path as drafted, off it at the prior's discount, wherever the path left it."""
    planner = new_planner(cost_table(per_row=0.0))
    planner.policy.choose(np.arange(100.0), 0)  # earlier trees were large
    weights = prefixes_of(pairs(planner).tree)
    expected = {
        (1,): 0.5, (1, 4): 0.5 * 0.6, (1, 4, 6): 0.5 * 0.6 * 0.8, (2, 3): 0.3 * 0.7 * PRIOR[1],
        (2, 3, 5): 0.3 * 0.7 * 0.4 * PRIOR[1] ** 2, (1, 3, 5): 0.5 * 0.1 * 0.4 * PRIOR[1],
        (2, 4, 6): 0.3 * 0.2 * 0.8 * PRIOR[1] ** 2,
    }  # fmt: skip
    for prefix, chance in expected.items():
        np.testing.assert_allclose(np.exp(weights[prefix]), chance, rtol=1e-5)


@pytest.mark.parametrize(
    ("chosen", "spine", "off_spine", "expected_spine", "expected_off"),
    [
        ([1, 4, 6, 9], [1, 1, 1], [0, 0, 0], [0.8, 0.7, 0.9], [0, 0, 0]),
        ([2, 3, 9], [1, 0, 0], [0, 1, 0], [0.8, 0, 0], [0, 0.9, 0.6]),
        ([1, 3, 5], [1, 1, 0], [0, 0, 1], [0.8, 0.7, 0], [0, 0, 0.6]),
        ([9, 3, 5], [0, 0, 0], [0, 0, 0], [0.8, 0, 0], [0, 0, 0]),  # a copy led on, where nothing was scored
        ([1], [1, 0, 0], [0, 0, 0], [0.8, 0, 0], [0, 0, 0]),
    ],
)
def test_outcomes_of_pairs_count_in_the_row_of_the_accepted_parent(
    chosen, spine, off_spine, expected_spine, expected_off
):
    planner = new_planner()
    planner.learn(pairs(planner), Outcome(chosen, 0, 1.8, 1.5, 0.2))
    hits, expected = planner.calibration.hits.sum(axis=-1), planner.calibration.expected.sum(axis=-1)
    assert hits[:, :3].tolist() == [spine, off_spine]
    np.testing.assert_allclose(expected[:, :3], [expected_spine, expected_off], rtol=1e-5)


def test_a_copy_is_compared_with_what_pairs_say_along_it():
    """Its own parents' rows."""
    planner = new_planner()
    believe(planner)
    copy = copied(planner, [2, 3, 6, 7], 9)
    proposal = pairs(planner, copy)
    relations = []
    for token in [2, 3, 6, 7]:
        relations += copy.relations
        copy = copy.after(token)
    assert relations == [DISAGREES, AGREES, DISAGREES, UNASKED]
    assert proposal.copy is not None


def test_a_copy_enters_a_tree_of_pairs():
    """Also where its tokens are no candidates."""
    planner = new_planner(cost_table(per_row=0.0))
    believe(planner)
    planner.policy.choose(np.arange(100.0), 0)  # earlier trees were large
    nodes = prefixes_of(pairs(planner, copied(planner, [9, 3, 8, 8], 20)).tree)
    assert {(9,), (9, 3), (9, 3, 8), (9, 3, 8, 8), (1, 4, 6)} <= nodes.keys()
