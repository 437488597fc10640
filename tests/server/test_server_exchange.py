"""Messages reach their nodes, once they are there and until they are confirmed; replies are whole."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

import pytest
from flwr.common.serde import message_from_proto

from fltestbed.flower.bundle import Bundle
from tests.server.lab import Lab

LONG_S = 20.0


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine, for no longer than half a hold."""

    async def limited() -> None:
        async with asyncio.timeout(LONG_S / 2):
            await coroutine

    asyncio.run(limited())


async def turns(task: Awaitable[Any] | None = None, count: int = 20) -> None:
    """Give others their turn: what could be done by now has been done."""
    for _ in range(count):
        await asyncio.sleep(0.005)
        if isinstance(task, asyncio.Task) and task.done():
            return


def identifier(bundle: Bundle | None) -> str:
    assert bundle is not None
    return str(bundle.messages[0][0].metadata.message_id)


def test_a_message_that_is_there_is_handed_out_at_once(lab: Lab) -> None:
    """Whole: its arrays come with it. Another node gets nothing."""
    first, second = lab.node(b"k1"), lab.node(b"k2")

    async def test() -> None:
        stored = lab.exchange.send(lab.instruct(first))
        bundle = await lab.exchange.next_for(first, LONG_S)
        assert [identifier(bundle)] == stored
        assert list(lab.received(bundle).content["arrays"]) == ["layer0", "layer1"]
        assert await lab.exchange.next_for(second, 0.0) is None

    run(test())


def test_a_waiting_node_is_woken(lab: Lab) -> None:
    """It waits for 20 s if need be; the message ends the wait, well before."""
    node = lab.node(b"k1")

    async def test() -> None:
        waiting = asyncio.create_task(lab.exchange.next_for(node, LONG_S))
        await turns()
        assert not waiting.done()
        lab.exchange.send(lab.instruct(node))
        assert await waiting is not None

    run(test())


def test_a_wait_has_an_end(lab: Lab) -> None:
    """None after the hold, so that the connection shows signs of life."""
    node = lab.node(b"k1")

    async def test() -> None:
        start = asyncio.get_running_loop().time()
        assert await lab.exchange.next_for(node, 0.1) is None
        assert 0.1 <= asyncio.get_running_loop().time() - start < 2

    run(test())


def test_a_message_comes_again_until_it_is_confirmed(lab: Lab) -> None:
    """The response that carried it may have broken: the same message, as often as it is asked for. A client that asks again
    says again that it holds the message before, which confirms nothing.
    """
    node = lab.node(b"k1")

    async def test() -> None:
        (message_id,) = lab.exchange.send(lab.instruct(node))
        assert message_id is not None
        names = {identifier(await lab.exchange.next_for(node, 0.0)) for _ in range(3)}
        assert len(names) == 1
        lab.exchange.confirm(node, "the message before")
        assert {identifier(await lab.exchange.next_for(node, 0.0))} == names
        lab.exchange.confirm(node, message_id)
        lab.exchange.confirm(node, message_id)  # a second confirmation of nothing does no harm
        assert await lab.exchange.next_for(node, 0.0) is None

    run(test())


def test_messages_come_in_their_order(lab: Lab) -> None:
    """The next one is handed out when the one before it is confirmed."""
    node = lab.node(b"k1")

    async def test() -> None:
        first, second = lab.instruct(node), lab.instruct(node)
        lab.exchange.send(first)
        lab.exchange.send(second)
        assert identifier(await lab.exchange.next_for(node, 0.0)) == identifier(first)
        lab.exchange.confirm(node, str(identifier(first)))
        assert identifier(await lab.exchange.next_for(node, 0.0)) == identifier(second)

    run(test())


def test_one_message_is_taken_of_flowers_state(lab: Lab) -> None:
    """The one that is asked for, though another of the same node was stored before it; once, and never for another node."""
    node, other = lab.node(b"k1"), lab.node(b"k2")
    first, second = lab.exchange.send(lab.instruct(node, node))
    assert first is not None
    assert second is not None
    assert lab.superlink.instruction(second, other) is None
    assert identifier(lab.superlink.instruction(second, node)) == second
    assert lab.superlink.instruction(second, node) is None
    assert identifier(lab.superlink.instruction(first, node)) == first
    assert lab.superlink.instruction("unknown", node) is None


def test_a_client_that_came_back_gets_what_its_old_request_was_given(lab: Lab) -> None:
    """A client whose connection broke while it waited asks again: both requests get the message, neither waits on."""
    node = lab.node(b"k1")

    async def test() -> None:
        requests = [asyncio.create_task(lab.exchange.next_for(node, 1.0)) for _ in range(2)]
        await turns()
        lab.exchange.send(lab.instruct(node))
        dead, live = await asyncio.gather(*requests)
        assert identifier(dead) == identifier(live)

    run(test())


def test_a_message_to_nobody_is_refused_by_name(lab: Lab) -> None:
    """Flower knows no such node: None in its place, and the others are sent."""
    node = lab.node(b"k1")

    async def test() -> None:
        nobody, somebody = lab.exchange.send(lab.instruct(node + 1, node))
        assert nobody is None
        assert somebody == identifier(await lab.exchange.next_for(node, 0.0))

    run(test())


async def deliver(lab: Lab, node: int) -> tuple[str, Any]:
    """Send a message to a node and let the node have it."""
    (message_id,) = lab.exchange.send(lab.instruct(node))
    assert message_id is not None
    return message_id, lab.received(await lab.exchange.next_for(node, 0.0))


def test_a_reply_wakes_the_app_that_waits_for_it(lab: Lab) -> None:
    """It comes whole, well before the hold is over."""
    node = lab.node(b"k1")

    async def test() -> None:
        message_id, message = await deliver(lab, node)
        collecting = asyncio.create_task(lab.exchange.collect({message_id}, lab.app.run_id, LONG_S))
        await turns()
        assert not collecting.done()
        assert lab.exchange.accept(lab.reply(message, node, 0.25))
        replies = await collecting
        assert lab.received(replies).content["metrics"]["loss"] == 0.25

    run(test())


def test_only_what_was_asked_for_is_collected(lab: Lab) -> None:
    """The other node's reply stays until somebody asks for it."""
    first, second = lab.node(b"k1"), lab.node(b"k2")

    async def test() -> None:
        asked, message = await deliver(lab, first)
        other, other_message = await deliver(lab, second)
        assert lab.exchange.accept(lab.reply(other_message, second))
        assert (await lab.exchange.collect({asked}, lab.app.run_id, 0.0)).messages == ()
        assert lab.exchange.accept(lab.reply(message, first))
        both = await lab.exchange.collect({asked, other}, lab.app.run_id, 0.0)
        assert {proto.metadata.reply_to_message_id for proto, _ in both.messages} == {asked, other}

    run(test())


def test_collecting_has_an_end(lab: Lab) -> None:
    """Without a reply, an empty bundle after the hold."""
    node = lab.node(b"k1")

    async def test() -> None:
        message_id, _ = await deliver(lab, node)
        assert (await lab.exchange.collect({message_id}, lab.app.run_id, 0.1)).messages == ()

    run(test())


def test_a_second_answer_is_refused_and_the_first_stays_whole(lab: Lab) -> None:
    """The first is still collected with its content, also when its very bytes were sent twice."""
    node = lab.node(b"k1")

    async def test() -> None:
        message_id, message = await deliver(lab, node)
        reply = lab.reply(message, node, 0.25)
        assert lab.exchange.accept(reply)
        assert lab.exchange.accept(reply)  # sent again because the answer to it was lost: the same reply
        assert not lab.exchange.accept(lab.reply(message, node, 0.75))
        replies = await lab.exchange.collect({message_id}, lab.app.run_id, 0.0)
        assert lab.received(replies).content["metrics"]["loss"] == 0.25

    run(test())


def test_another_nodes_answer_is_refused(lab: Lab) -> None:
    """The message was not for it; the right node can still answer."""
    node, thief = lab.node(b"k1"), lab.node(b"k2")

    async def test() -> None:
        message_id, message = await deliver(lab, node)
        stolen = lab.reply(message, node)
        stolen.messages[0][0].metadata.src_node_id = thief
        assert not lab.exchange.accept(stolen)
        assert lab.exchange.accept(lab.reply(message, node, 0.5))
        replies = await lab.exchange.collect({message_id}, lab.app.run_id, 0.0)
        assert lab.received(replies).metadata.src_node_id == node

    run(test())


def test_half_a_reply_of_a_supernode_is_not_handed_out(lab: Lab) -> None:
    """A SuperNode announces its reply and pushes the objects after: the app gets it when the last is there."""
    node = lab.node(b"k1")

    async def test() -> None:
        message_id, message = await deliver(lab, node)
        reply = lab.reply(message, node, 0.25)
        proto, tree = reply.messages[0]
        state = lab.state
        lab.exchange.reply_begun(message_id, node)
        session = state.start_session(lab.app.run_id)
        stored, missing = state.store_message_and_object_tree(message_from_proto(proto), tree, session)
        assert stored
        assert missing
        assert (await lab.exchange.collect({message_id}, lab.app.run_id, 0.1)).messages == ()
        for name in missing:
            state.store_object(lab.app.run_id, session, name, bytes(reply.objects[name]))
        lab.exchange.reply_complete(message_id)
        replies = await lab.exchange.collect({message_id}, lab.app.run_id, 0.0)
        assert lab.received(replies).content["metrics"]["loss"] == 0.25
        assert proto.metadata.reply_to_message_id == message_id

    run(test())


def test_an_error_that_flower_makes_is_collected(lab: Lab) -> None:
    """A node that is gone never answers: Flower's error takes the reply's place."""
    node = lab.node(b"k1")

    async def test() -> None:
        message_id, _ = await deliver(lab, node)
        state = lab.state
        assert state.deactivate_node(node)
        replies = await lab.exchange.collect({message_id}, lab.app.run_id, 0.0)
        message = lab.received(replies)
        assert message.has_error()
        assert message.metadata.reply_to_message_id == message_id
        lab.exchange.forget(replies)

    run(test())


def test_replies_that_are_held_leave_nothing_behind(lab: Lab) -> None:
    """After a round neither messages nor objects are in Flower's state: memory does not grow with the rounds."""
    node = lab.node(b"k1")

    async def test() -> None:
        state = lab.state
        for loss in (0.1, 0.2):
            message_id, message = await deliver(lab, node)
            lab.exchange.confirm(node, message_id)
            assert lab.exchange.accept(lab.reply(message, node, loss))
            lab.exchange.forget(await lab.exchange.collect({message_id}, lab.app.run_id, 0.0))
            assert (state.num_message_ins(), state.num_message_res()) == (0, 0)
            assert state.object_store.store == {}

    run(test())


def test_the_end_of_the_run_wakes_everybody(lab: Lab) -> None:
    """Nodes that wait for 20 s are told at once, and who asks later does not wait at all."""
    nodes = [lab.node(b"k1"), lab.node(b"k2")]

    async def test() -> None:
        waiting = [asyncio.create_task(lab.exchange.next_for(node, LONG_S)) for node in nodes]
        await turns()
        lab.exchange.finish()
        assert await asyncio.gather(*waiting) == [None, None]
        assert await lab.exchange.next_for(nodes[0], LONG_S) is None

    run(test())


def test_after_the_end_of_the_run_no_work_is_handed_out(lab: Lab) -> None:
    """A message that missed its round is not trained on when nobody waits for the result."""
    node = lab.node(b"k1")

    async def test() -> None:
        await deliver(lab, node)
        lab.exchange.finish()
        assert await lab.exchange.next_for(node, 0.0) is None

    run(test())


def test_waiting_asks_nobody(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing comes, Flower is not asked, and neither for what came for another node."""
    node, other = lab.node(b"k1"), lab.node(b"k2")
    lab.exchange.send(lab.instruct(other))
    asked: list[int] = []
    monkeypatch.setattr(lab.superlink, "instruction", lambda message_id, node_id: asked.append(node_id))
    run(_wait(lab, node))
    assert asked == []


async def _wait(lab: Lab, node: int) -> None:
    assert await lab.exchange.next_for(node, 0.3) is None


def test_a_message_that_expires_is_answered_with_an_error(lab: Lab) -> None:
    """Whoever waits for it is woken at once, whatever app it is; what its client sends later is refused."""
    node = lab.node(b"k1")

    async def test() -> None:
        message_id, message = await deliver(lab, node)
        waiting = asyncio.create_task(lab.exchange.collect({message_id}, lab.app.run_id, 60.0))
        await asyncio.sleep(0)
        lab.exchange.expire(message_id, lab.app.run_id)
        reply = lab.received(await asyncio.wait_for(waiting, 10.0))
        assert reply.has_error()
        assert reply.metadata.reply_to_message_id == message_id
        assert not lab.exchange.accept(lab.reply(message, node))
        assert await lab.exchange.next_for(node, 0.0) is None
        state = lab.state
        assert (state.num_message_ins(), state.num_message_res()) == (0, 0)

    run(test())
