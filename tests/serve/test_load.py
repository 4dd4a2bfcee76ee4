"""Many clients at once, a third of whom leave: the others are answered, nothing stays behind."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from autoneural.demo import EXAMPLES
from tests.serve.helpers import ask, client, data_url, wait_until

CHAT = "/v1/chat/completions"
CLIENTS, EACH = 8, 6
QUESTIONS = (
    ("driver.jpg", "Is the driver alert, drowsy, asleep or distracted?"),
    ("cluster.jpg", "What speed is shown?"),
    ("cluster.jpg", "What is the next navigation instruction?"),
    ("door.jpg", "What is behind the door?"),
)


def body(number: int) -> dict:
    name, text = QUESTIONS[number]
    return {"messages": [ask(text, data_url((EXAMPLES / name).read_bytes(), "image/jpeg"))]}


def test_many_clients_of_whom_a_third_leave(url: str, http, served) -> None:
    alone = [http.post(CHAT, json=body(n)).json()["choices"] for n in range(len(QUESTIONS))]
    assert len({str(choices) for choices in alone}) > 2

    def ask_and_leave(seed: int) -> int:
        rng = random.Random(seed)
        answered = 0
        with client(url) as mine:
            for _ in range(EACH):
                number = rng.randrange(len(QUESTIONS))
                if rng.random() < 1 / 3:
                    with mine.stream("POST", CHAT, json={**body(number), "stream": True}) as reply:
                        next(reply.iter_raw(), None)
                else:
                    assert mine.post(CHAT, json=body(number)).json()["choices"] == alone[number]
                    answered += 1
        return answered

    with ThreadPoolExecutor(CLIENTS) as threads:
        answered = list(threads.map(ask_and_leave, range(CLIENTS)))
    assert CLIENTS * EACH > sum(answered) > CLIENTS * EACH / 2
    wait_until(lambda: served.requests == 0)
    assert not served.jobs
    assert served.worker.waiting == 0
