"""Where the tokens of an answer came from: drafted, copied from what was said before, or the model's own."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.generation.response import GenerationResponse

DRAFTED, COPIED, OWN = "drafted", "copied", "own"


@dataclass(frozen=True)
class Piece:
    """One token's text; origin: 'drafted', 'copied' or 'own'.  A token that ends no character has none."""

    text: str
    origin: str


class Pieces:
    """Cuts the responses of one answer into their tokens' texts, one response after the other."""

    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        self._detokenizer = tokenizer.detokenizer
        self._ends = tokenizer.eos_token_ids

    def of(self, response: GenerationResponse) -> list[Piece]:
        """The pieces of the next response; together they are the tokens' text, which stop strings do not cut."""
        guessed = COPIED if response.kind == "lookup" else DRAFTED
        pieces = []
        for i, token in enumerate(response.tokens):
            if token in self._ends:
                break
            self._detokenizer.add_token(token)
            origin = guessed if i < response.round.accepted else OWN
            pieces.append(Piece(self._detokenizer.last_segment, origin))
        if response.finish_reason is not None:
            self._detokenizer.finalize()
            pieces.append(Piece(self._detokenizer.last_segment, pieces[-1].origin if pieces else OWN))
        return [piece for piece in pieces if piece.text]
