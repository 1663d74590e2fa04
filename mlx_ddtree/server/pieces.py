"""What a round's response is to whoever asked: a piece of text, its probabilities, the figures at the end."""

from __future__ import annotations

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.generation.response import GenerationResponse
from mlx_ddtree.server.events import AnswerTotals, Job, Piece
from mlx_ddtree.server.logprobs import token_logprobs


def piece_of(tokenizer: TokenizerWrapper, job: Job, cached: int, response: GenerationResponse) -> Piece:
    """The piece that a job gets for a response; cached: tokens of its prompt that were not processed."""
    logprobs = []
    if job.top is not None:
        tokens = [t for t in response.tokens if t not in tokenizer.eos_token_ids]
        logprobs = token_logprobs(tokenizer, tokens, response.logprobs, job.top)
    if response.finish_reason is None:
        return Piece(response.text, logprobs, None)
    compression = response.compression
    reads = response.statistics.reads
    totals = AnswerTotals(
        finish_reason=response.finish_reason,
        stopped_by=response.stopped_by,
        prompt_tokens=len(job.ids),
        cached_tokens=cached,
        generated_tokens=response.generation_tokens,
        rounds=response.rounds,
        acceptance_length=round(response.mean_acceptance_length, 3),
        prompt_tps=round(response.prompt_tps, 1),
        generation_tps=round(response.generation_tps, 1),
        kinds=dict(response.statistics.kinds),
        compression=None if compression is None else compression.as_dict(),
        kv_reads=None if reads is None else reads.as_dict(),
    )
    return Piece(response.text, logprobs, totals)
