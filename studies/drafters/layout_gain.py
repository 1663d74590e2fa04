"""What DFlash 2 and DSpark gain over v1 when all are trained for equally long on equal answers.

Usage: python studies/drafters/layout_gain.py ANSWERS.jsonl PROMPTS.jsonl OUT [--minutes 10] [--test 40] [--max-tokens 96]

ANSWERS.jsonl: the target's answers, as mlx_ddtree.train writes them to responses.jsonl.
PROMPTS.jsonl: {"prompt": ...} that the drafters did not see.
OUT: a folder for the drafters.  A layout whose drafter is there is not trained again.

The minutes are this process's processor time in steps whose target's states are stored, so that neither other programs
nor the states count; the learning rate follows them.  Tokens a round are counted on the target's answers to the prompts:
a draft at every place, and rounds walked over them as decoding makes them with a fixed number of nodes.  What is drafted
has no part in what the target draws, so at temperature 1 too answers may be drawn first.
"""

import argparse
import json
import time
from pathlib import Path

import mlx_ddtree  # isort: skip  (before MLX, for its BLAS)
import mlx.core as mx
from markov_head import POOLS, drafts, features_of, follow

from mlx_ddtree.decoding.draft import finish_draft, start_candidates
from mlx_ddtree.drafter.paths import start_paths
from mlx_ddtree.programs.training import tune_cpu
from mlx_ddtree.training.answers import Answering, answer_batch, read_answers
from mlx_ddtree.training.batches import make_batch
from mlx_ddtree.training.examples import usable_examples
from mlx_ddtree.training.loop import STATES, Trainer
from mlx_ddtree.training.mask_token import choose_mask_token
from mlx_ddtree.training.schedule import TrainingSettings
from mlx_ddtree.training.setup import V1, default_config, dflash2_layout, dspark_layout, new_drafter
from mlx_ddtree.tree import build_tree

NODES = (4, 8, 16, 32, 64)
LAYOUTS = ("v1", "DFlash 2", "DSpark")


def layout_of(name, target, rank):
    return {"v1": V1, "DFlash 2": dflash2_layout(target, rank), "DSpark": dspark_layout(rank)}[name]


def train(pair, name, examples, folder, args):
    """Steps for so many minutes of processor time."""
    target = pair.target
    mask = choose_mask_token(pair.tokenizer, target.vocab_size, examples, args.mask_token)
    config = default_config(
        target,
        mask,
        layers=args.layers,
        block_size=args.block_size,
        layout=layout_of(name, target, args.rank),
    )
    settings = TrainingSettings(
        minutes=args.minutes, batch_size=args.batch_size, anchors=args.anchors, lr=args.lr, optimizer=args.optimizer
    )
    folder.mkdir(parents=True, exist_ok=True)
    (args.out / STATES).mkdir(exist_ok=True)
    if not (folder / STATES).exists():  # they are the same for all layouts
        (folder / STATES).symlink_to((args.out / STATES).resolve())
    trainer = Trainer(target, new_drafter(config, target, args.seed), examples, folder, settings)
    everything = [*trainer.examples, *trainer.held_out]
    for first in range(0, len(everything), 8):
        places = range(first, min(first + 8, len(everything)))
        trainer.store.batch(places, make_batch([everything[i] for i in places]))
    trainer.start()
    said = time.monotonic()
    while trainer.done() < 1:
        began = time.process_time()
        loss, _ = trainer.step()
        trainer.progress.seconds += time.process_time() - began
        if time.monotonic() - said > 30:
            said = time.monotonic()
            print(f"{name}: {trainer.done():.0%}, step {trainer.progress.step}, loss {loss:.3f}", flush=True)
    trainer.save()
    found = trainer.evaluate()
    anchors = trainer.progress.step * min(args.batch_size, len(trainer.examples)) * args.anchors
    print(
        f"{name}: {trainer.progress.step} steps, {anchors} anchors in {trainer.progress.seconds:.0f} s of processor time; "
        f"held-out answers: loss {found.loss:.3f}, tau {found.tau:.2f}",
        flush=True,
    )


def answers(pair, rows, max_tokens, temp):
    """[(prompt's tokens, all tokens), ...]: what the target says, whatever is drafted."""
    prompts = []
    for row in rows:
        chat = [{"role": "user", "content": row["prompt"]}]
        prompts.append(tuple(pair.tokenizer.apply_chat_template(chat, add_generation_prompt=True)))
    mx.random.seed(0)
    how = Answering(max_tokens=max_tokens, batch_size=64)
    said = answer_batch(pair.target.model, pair.tokenizer, prompts, temp, how)
    return [(list(prompt), [*prompt, *response]) for prompt, response in sorted(said)]


def record(pair, texts, pool=None):
    """For every text: its answer, and a draft's candidates at every place that may be a root.

    pool: tokens among which a Markov head chooses its candidates; None is as many as in drafting.
    """
    rows = []
    for prompt, tokens in texts:
        places = range(len(prompt), len(tokens) - 1)
        drafted = []
        for place, hidden in drafts(pair, tokens, places, features_of(pair, tokens)):
            root = mx.array(tokens[place])
            started = start_candidates(pair, root, hidden, max(NODES))
            if pool is not None:
                logits = pair.drafter.logits(hidden, pair.target.head)
                head = pair.drafter.markov_head
                started = started._replace(
                    result=start_paths(head, logits, root, hidden, pair.target.embed, None, pool)
                )
            drafted.append(finish_draft(started))
        rows.append((tokens[len(prompt) :], drafted))
    return rows


def tau(rows, tree_of):
    """Tokens a round; tree_of: from a root and its candidates to a tree."""
    emitted = rounds = 0
    for answer, drafted in rows:
        place = 0
        while place < len(drafted):
            accepted = follow(tree_of(answer[place], drafted[place]), answer[place + 1 :])
            place += accepted + 1
            rounds += 1
        emitted += place
    return emitted / max(rounds, 1)


def chain(root, candidates):
    return build_tree(root, *candidates.greedy(), len(candidates.token_ids))


def measure(pair, texts, pool=None):
    """{'chain' or nodes: tokens a round}"""
    recorded = record(pair, texts, pool)
    found = {"chain": tau(recorded, chain)}
    for nodes in NODES:
        found[nodes] = tau(recorded, lambda root, drafted, n=nodes: build_tree(root, *drafted, n))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--test", type=int, default=40, help="prompts")
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--temps", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=LAYOUTS)
    parser.add_argument("--pools", action="store_true", help="also what DSpark loses by scoring some tokens only")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--block-size", type=int, default=8)
    parser.add_argument("--mask-token", type=int)
    parser.add_argument("--rank", type=int, default=64, help="of the selector and of the Markov head")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--anchors", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tune_cpu()
    pair = mlx_ddtree.load(args.model)
    examples = usable_examples(read_answers(args.answers))
    folders = {name: args.out / name.replace(" ", "").lower() for name in args.layouts}
    for name, folder in folders.items():
        if not (folder / "config.json").exists():
            train(pair, name, examples, folder, args)
    rows = [json.loads(line) for line in args.prompts.read_text(encoding="utf-8").splitlines()][: args.test]
    texts = {temp: answers(pair, rows, args.max_tokens, temp) for temp in args.temps}
    print("| drafter | T | linear | " + " | ".join(f"{n} nodes" for n in NODES) + " |")
    for name, folder in folders.items():
        drafting = mlx_ddtree.load(args.model, str(folder))
        pools = POOLS if args.pools and name == "DSpark" else {}
        for temp in args.temps:
            for said, pool in {name: None, **pools}.items():
                found = measure(drafting, texts[temp], pool).values()
                print(f"| {said} | {temp:g} | " + " | ".join(f"{mean:.2f}" for mean in found) + " |", flush=True)


if __name__ == "__main__":
    main()
