"""The work of mlx_ddtree.convert: convert, upload, report."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from mlx_ddtree.hub.convert import Converted, Quantisation, convert
from mlx_ddtree.hub.publish import check_repository, upload


def run(args: argparse.Namespace) -> int:
    if args.upload_repo:
        check_repository(args.upload_repo)
    default = args.upload_repo.split("/")[-1] if args.upload_repo else "mlx_model"
    output = args.mlx_path or Path(default)
    converted = convert(
        args.draft_model,
        output,
        revision=args.draft_revision,
        dtype=args.dtype,
        quantisation=Quantisation(args.q_bits, args.q_group_size, args.q_mode) if args.quantize else None,
        dequantise=args.dequantize,
        target=args.model,
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
