"""mlx_ddtree.server: an OpenAI-compatible server."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from mlx_ddtree.errors import MissingExtraError
from mlx_ddtree.generation.options import FORM
from mlx_ddtree.programs import arguments, cli

EXAMPLES = """\
  mlx_ddtree.server
  mlx_ddtree.server --model mlx-community/Qwen3-8B-4bit --port 8080 --prompt-cache-bytes 4GB
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
      -d '{"messages": [{"role": "user", "content": "Write a function that counts vowels."}]}'
"""
KEY_VARIABLE = "MLX_DDTREE_API_KEY"
HOSTS_HELP = "further host names that clients may use, such as host.docker.internal; * is any"


def make_arguments(program: str = "mlx_ddtree.server") -> argparse.ArgumentParser:
    """The program's options.  program: how it was called."""
    about = "Serve a model with OpenAI's API and Anthropic's; drafts make it faster and change nothing."
    parser = cli.make_parser(about, EXAMPLES, program)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--api-key", help=f"clients must send it; better in ${KEY_VARIABLE}, where ps cannot see it")
    parser.add_argument("--allowed-hosts", type=_names, default=[], metavar="LIST", help=HOSTS_HELP)
    parser.add_argument("--allowed-origins", type=_names, default=[], metavar="LIST", help="web pages' origins (CORS)")
    parser.add_argument("--served-model-name", metavar="NAME", help="the model's name to clients (default: --model)")
    arguments.add_template_arguments(parser)
    limits = parser.add_argument_group("limits")
    limits.add_argument("--queue-size", type=int, default=32, help="requests that may wait (default: %(default)s)")
    limits.add_argument("--request-timeout", type=float, metavar="SECONDS", help="waiting included (default: none)")
    limits.add_argument("--shutdown-timeout", type=float, default=10, metavar="SECONDS", help="for running requests")
    limits.add_argument("--prompt-cache-size", type=int, default=10, help="prompt caches kept (default: %(default)s)")
    limits.add_argument("--prompt-cache-bytes", metavar="SIZE", help="of all of them: 500MB, 4GB (default: memory / 8)")
    limits.add_argument("--prompt-cache-dir", metavar="DIR", help="keep prompt caches in files too, over a restart")
    limits.add_argument("--prompt-cache-dir-bytes", metavar="SIZE", default="10GB", help="of these (default: 10GB)")
    arguments.add_model_options(parser, several=True)
    arguments.add_generation_options(parser, leave_out=FORM, max_tokens=1024, prefill_seconds=4.0)  # form: of requests
    arguments.add_output_options(parser, "log requests, and how models are loaded")
    return parser


def main(argv: Sequence[str] | None = None, program: str = "mlx_ddtree.server") -> int:
    check = arguments.generation_options
    return cli.run(serve, make_arguments(program).parse_args(argv), several=True, check=check)


def serve(args: argparse.Namespace) -> int:
    try:
        from mlx_ddtree.server import run  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError as error:
        raise MissingExtraError("the server", str(error.name), "server") from None
    settings = run.make_settings(args, os.environ.get(KEY_VARIABLE))
    engine = run.make_engine(args)
    with run.listen(args.host, args.port) as listener:
        run.end_quietly_on_sigterm()
        print(f"loading {settings.model}", file=sys.stderr)
        if not run.is_loopback(args.host) and not settings.api_key:
            print(f"warning: anybody who reaches {args.host} can use this server; set ${KEY_VARIABLE}", file=sys.stderr)
        try:
            engine.start()
            listener.listen()  # uvicorn does so only after the line below, which tells programs that they may connect
            name = f"[{args.host}]" if ":" in args.host else args.host
            print(f"{settings.model} at http://{name}:{listener.getsockname()[1]}/v1; Ctrl-C stops it", flush=True)
            run.serve(listener, engine, settings, args.shutdown_timeout, args.verbose)
        finally:
            engine.stop()
    return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    raise SystemExit(main())
