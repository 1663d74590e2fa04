"""mlx_ddtree.convert: a public drafter as MLX weights, quantised or not, from the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mlx_ddtree.drafter.load_drafter import QUANTISATION_MODES
from mlx_ddtree.errors import OptionError
from mlx_ddtree.hub.convert import DTYPES, Converted, Quantisation, convert
from mlx_ddtree.hub.publish import check_repository, upload
from mlx_ddtree.machine import __version__
from mlx_ddtree.programs import cli

EXAMPLES = """\
  mlx_ddtree.convert --hf-path z-lab/Qwen3-8B-DFlash-b16 -q --mlx-path Qwen3-8B-DFlash-4bit
  mlx_ddtree.convert --hf-path ./my-drafter --dtype float16 --mlx-path my-drafter-fp16 --target ./my-model
  mlx_ddtree.convert --hf-path z-lab/Qwen3-8B-DFlash-b16 -q --q-bits 8 --upload-repo me/Qwen3-8B-DFlash-8bit
"""


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser(
        "Convert a DFlash drafter to MLX, quantise it, and publish it.", EXAMPLES, "mlx_ddtree.convert"
    )
    parser.add_argument("--hf-path", "--model", required=True, help="drafter: Hugging Face repository or local folder")
    parser.add_argument("--revision", help="branch, tag or commit of --hf-path")
    parser.add_argument("--mlx-path", type=Path, help="new folder (default: mlx_model, or --upload-repo's name)")
    parser.add_argument("--dtype", choices=DTYPES, help="of what is not quantised (default: as stored)")
    parser.add_argument("--target", help="for the model card: what it drafts for (default: looked up)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--version", action="version", version=__version__)
    group = parser.add_argument_group("quantisation")
    group.add_argument("-q", "--quantize", action="store_true", help="quantise its linear layers")
    group.add_argument("-d", "--dequantize", action="store_true", help="undo a quantisation")
    group.add_argument("--q-bits", type=int, help="bits a weight (default: the mode's, 4 for affine)")
    group.add_argument("--q-group-size", type=int, help="weights a scale (default: the mode's, 64 for affine)")
    group.add_argument("--q-mode", choices=QUANTISATION_MODES, default="affine", help="default: %(default)s")
    group = parser.add_argument_group("publishing")
    group.add_argument("--upload-repo", help="repository to create or update with the result")
    group.add_argument("--private", action="store_true", help="create it for yourself only")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(run, make_arguments().parse_args(argv))


def run(args: argparse.Namespace) -> int:
    if not args.quantize and (args.q_bits or args.q_group_size or args.q_mode != "affine"):
        raise OptionError("--q-bits, --q-group-size and --q-mode belong to -q")
    if args.upload_repo:
        check_repository(args.upload_repo)
    default = args.upload_repo.split("/")[-1] if args.upload_repo else "mlx_model"
    output = args.mlx_path or Path(default)
    converted = convert(
        args.hf_path,
        output,
        revision=args.revision,
        dtype=args.dtype,
        quantisation=Quantisation(args.q_bits, args.q_group_size, args.q_mode) if args.quantize else None,
        dequantise=args.dequantize,
        target=args.target,
        name=args.upload_repo,
    )
    address = upload(output, args.upload_repo, private=args.private) if args.upload_repo else None
    report(converted, address, args.json)
    return 0


def report(converted: Converted, address: str | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(converted) | {"url": address}))
        return
    print(
        f"{converted.output}: {converted.parameters / 1e6:,.1f} M parameters, "
        f"{converted.bits_per_weight:.2f} bits each, {converted.bytes / 1e6:,.1f} MB"
    )
    if address:
        print(f"published at {address}")
    model = f" --model {converted.target}" if converted.target else ""
    print(f"use it with:\n  mlx_ddtree.generate{model} --draft-model {converted.output} --prompt ...")


if __name__ == "__main__":
    raise SystemExit(main())
