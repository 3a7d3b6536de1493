"""A client that answers from a list in the config: `providers: {mine: {kind: canned, options: {answers: {question: answer}}}}`."""

from evalrunner import Account, Client, Completion, Request, Timing, Usage
from evalrunner.clock import Clock
from evalrunner.errors import RejectedError


class Canned:
    """Looks the last message up; a question it does not know is refused."""

    def __init__(self, answers: dict[str, str], clock: Clock) -> None:
        self._answers, self._clock = answers, clock

    async def complete(self, request: Request) -> Completion:
        started = self._clock.now_ns()
        question = request.messages[-1]["content"]
        if question not in self._answers:
            raise RejectedError(f"no answer is canned for {question!r}", code="unknown_question")
        timing = Timing(started_ns=started, ended_ns=self._clock.now_ns())
        usage = Usage(prompt_tokens=len(question.split()), completion_tokens=len(self._answers[question].split()))
        return Completion(output=self._answers[question], finish_reason="stop", timing=timing, usage=usage)

    async def aclose(self) -> None:
        """There is nothing to close."""


def canned(account: Account, clock: Clock) -> Client:
    return Canned(account.options.get("answers", {}), clock)
