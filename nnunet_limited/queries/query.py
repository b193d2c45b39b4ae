"""The verb of the room: choose what to annotate next and write the files for it."""

from nnunet_limited.queries.choose import choose_windows
from nnunet_limited.queries.hand_over import hand_over
from nnunet_limited.queries.query_round import check_round
from nnunet_limited.queries.record import RECORD, Round, begin_round, load_round
from nnunet_limited.queries.request import QueryRequest
from nnunet_limited.queries.score import Track, score_cases
from nnunet_limited.util.locks import alone


def query(request: QueryRequest, device: str, track: Track = iter) -> Round:
    """Score the pool, choose windows and write the round; an interrupted one is continued, a complete one is read.

    ``device`` is ``cpu``, ``cuda`` or ``mps``; ``track`` yields the cases one by one and shows the progress.
    """
    query_round = check_round(request)
    with alone(request.out, wait=True):
        begin_round(request.out, query_round.record)
        if (request.out / RECORD).is_file():
            return load_round(request.out)
        score_cases(query_round, device, track)
        return hand_over(query_round, choose_windows(query_round), device, track)
