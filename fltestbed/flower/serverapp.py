"""A ServerApp process at the SuperLink: its task, its heartbeat, its output, and the strategy's steps made visible."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import httpx
from flwr.app import Context, Message
from flwr.common.config import get_fused_config_from_dir, get_project_config
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto, fab_from_proto, run_from_proto
from flwr.proto.node_pb2 import NodeInfo as NodeInfo  # noqa: PLC0414  # also for signatures of ours
from flwr.proto.runtime_pb2 import GetNodesRequest, PullTaskInputRequest, PushTaskOutputRequest
from flwr.server.run_serverapp import run as run_server_app
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.run import Run as Run  # noqa: PLC0414  # also for signatures of ours
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from fltestbed.errors import TestbedError
from fltestbed.flower.agreement import Agreement, wants_agreement
from fltestbed.flower.apps import App, install
from fltestbed.flower.continuation import Continuation, RoundKeeper
from fltestbed.flower.folding import folded_averages, is_averaging


class ServerAppTask:
    """The task of one ServerApp: taken up, kept alive, and ended with its outcome."""

    def __init__(self, address: str, token: str) -> None:
        self._client = RuntimeHttpClient.from_server_address(
            server_address=address,
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
                RuntimeTokenHttpInterceptor(token=token),
            ],
            retry_invoker=make_simple_http_retry_invoker(),
        )
        self._heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(self._client))

    def start(self) -> tuple[Run, App, Context]:
        """Take up the task: its run, its app and its context."""
        self._heartbeat.start()
        given = self._client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id = given.task_id
        TaskIdentity.run_id = given.run.run_id
        TaskIdentity.node_id = given.context.node_id
        run, fab = run_from_proto(given.run), fab_from_proto(given.fab)
        app = App(run.run_id, run.fab_id, run.fab_version, fab.hash_str, fab.content)
        return run, app, context_from_proto(given.context)

    def nodes(self) -> list[NodeInfo]:
        """Nodes that are online."""
        return list(self._client.GetNodes(GetNodesRequest()).nodes)

    def finish(self, error: str | None) -> None:
        """Report how it ended. A SuperLink that is gone does not matter any more."""
        status = SubStatus.COMPLETED if error is None else SubStatus.FAILED
        try:
            self._client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=error or ""))
        except httpx.HTTPError:
            return
        finally:
            self._heartbeat.stop()
            self._client.close()


def run_app(run: Run, app: App, context: Context, grid: Grid) -> None:
    """Install an app and run its ServerApp to the end."""
    folder = install(app)
    context.run_config = get_fused_config_from_dir(folder, run.override_config)
    reference = get_project_config(folder)["tool"]["flwr"]["app"]["components"].get("serverapp")
    if reference is None:
        raise TestbedError(
            f"{app.fab_id}: the app has no ServerApp; name one in its pyproject.toml under [tool.flwr.app.components]"
        )
    run_server_app(grid=grid, context=context, server_app_dir=str(folder), server_app_attr=reference)


StepListener = Callable[[str, int, int, int, Any], None]
"""Called after a step with its name, the round, start and end (raw ns of this host) and what it returned."""

_STEPS = ("configure_train", "aggregate_train", "configure_evaluate", "aggregate_evaluate")


class AveragingGrid(Protocol):
    """A Grid that can do a part of what an averaging strategy does, with the replies to the list that is sent next."""

    def fold_replies(self, messages: list[Message], weighted_by_key: str) -> None:
        """Add up the replies to this very list as they arrive."""

    def judge_replies(self, messages: list[Message], agreement: Agreement) -> None:
        """Make errors of the replies to this very list that cannot be averaged with the others."""


@contextmanager
def observed_strategies(
    listener: StepListener,
    raw_ns: Callable[[], int],
    averaging_grid: AveragingGrid | None = None,
    keeper: RoundKeeper | None = None,
    *,
    folds: bool = True,
) -> Iterator[None]:
    """Let `listener` see the steps of every strategy that is started within the block.

    The steps are wrapped on the strategy object that `start` was called on, so that any strategy works as it is, whatever
    methods it overrides; `evaluate_fn` is the step `server_evaluate`. A strategy that averages and is started with
    `averaging_grid` has the replies of training folded by it, if it `folds`; one that would raise where replies do not agree
    gets errors in the place of those that do not. `keeper` is told of each round that is over, of the first call of `start`
    alone, and may let that one go on from an earlier run.
    """
    original = Strategy.start
    signature = inspect.signature(original)
    keepers = [keeper]

    def timed(
        name: str,
        step: Callable[..., Any],
        continuation: Continuation,
        prepare: Callable[[int, list[Message]], None] = lambda *_: None,
    ) -> Callable[..., Any]:
        @functools.wraps(step)
        def wrapper(server_round: int, *args: Any, **kwargs: Any) -> Any:
            round_ = server_round + continuation.done
            start = raw_ns()
            result = step(round_, *args, **kwargs)
            if name.startswith("configure"):
                result = list(result)  # a generator would do its work later, in somebody else's phase
                prepare(round_, result)
            listener(name, round_, start, raw_ns(), result)
            continuation.step_over(name, round_, result)
            return result

        return wrapper

    @functools.wraps(original)
    def start(self: Strategy, *args: Any, **kwargs: Any) -> Any:
        call = signature.bind(self, *args, **kwargs)
        continuation = Continuation(self, call, keepers.pop() if keepers else None)
        grid, key = call.arguments["grid"], getattr(self, "weighted_by_key", "")
        ours = averaging_grid if averaging_grid is grid else None
        fold = ours if folds and is_averaging(self) else None
        judge = ours if wants_agreement(self) else None
        keeps_model = hasattr(self, "current_arrays")  # and raises where the next one is of another form
        agreement: Agreement | None = None

        def before_training(round_: int, messages: list[Message]) -> None:
            nonlocal agreement
            if fold is not None:
                fold.fold_replies(messages, key)
            if judge is not None and messages:
                agreement = Agreement(key, messages[0], may_differ=round_ == 1 and not keeps_model, before=agreement)
                judge.judge_replies(messages, agreement)

        def before_evaluation(_: int, messages: list[Message]) -> None:
            if judge is not None:
                judge.judge_replies(messages, Agreement(key, None))

        prepare = {"configure_train": before_training, "configure_evaluate": before_evaluation}
        before = {name: vars(self)[name] for name in _STEPS if name in vars(self)}
        for name in _STEPS:
            setattr(self, name, timed(name, getattr(self, name), continuation, prepare.get(name, lambda *_: None)))
        if (evaluate := call.arguments["evaluate_fn"]) is not None:
            call.arguments["evaluate_fn"] = continuation.once(timed("server_evaluate", evaluate, continuation))
        try:
            return continuation.finished(original(*call.args, **call.kwargs))
        finally:  # or a second start would wrap the wrappers
            for name in _STEPS:
                delattr(self, name)
            vars(self).update(before)

    Strategy.start = start  # type: ignore[method-assign]  # put back in the end
    try:
        with folded_averages():
            yield
    finally:
        Strategy.start = original  # type: ignore[method-assign]  # as it was
