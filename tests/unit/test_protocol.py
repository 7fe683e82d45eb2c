"""Conversations over the control socket: any length of path, any cut of the bytes."""

import json
import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simgrid_ml.node.protocol import Connection, address, connect, encode

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
messages = st.dictionaries(st.text(), values, max_size=5)


@given(st.lists(messages, max_size=6), st.data())
def test_messages_arrive_whole_however_the_bytes_are_cut(
    sent: list[dict[str, object]], data: st.DataObject
) -> None:
    stream = b"".join(encode(message) for message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    left, right = socket.socketpair()
    with left, right:
        connection = Connection(right)
        received = []
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            if begin == end:
                continue
            left.sendall(stream[begin:end])
            received += list(connection.receive())
        assert received == sent


def test_a_message_is_one_line_of_ascii_whatever_it_says() -> None:
    line = encode({"op": "spawn", "argv": ["new\nline", "żółć", "\udce9 no utf-8", '"']})
    assert line.count(b"\n") == 1 and line.isascii()
    assert json.loads(line)["argv"][2] == "\udce9 no utf-8"


def test_the_end_of_the_other_side_is_told() -> None:
    left, right = socket.socketpair()
    left.close()
    with right, pytest.raises(EOFError):
        list(Connection(right).receive())


def test_an_unanswered_question_gives_none_when_the_other_side_goes_away() -> None:
    left, right = socket.socketpair()
    left.shutdown(socket.SHUT_WR)
    with left, right:
        assert Connection(right).ask(op="rsh") is None


@pytest.mark.parametrize("length", [106, 107, 108, 109, 400, 2000])
def test_a_socket_is_reached_whatever_the_length_of_its_path(length: int) -> None:
    with tempfile.TemporaryDirectory() as short:
        path = os.path.join(short, *["ü" * 40] * (length // 90), "")
        path += "x" * (length - len(os.fsencode(path)) - len("/s")) + "/s"
        assert len(os.fsencode(path)) == length
        os.makedirs(os.path.dirname(path))
        talk_over(path)


def talk_over(path: str) -> None:
    opened = os.open(os.path.dirname(path), os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address(path, opened))
        server.listen()
        client = connect(path)
        accepted, _ = server.accept()
        with accepted:
            client.send(op="hello", node="node0")
            assert list(Connection(accepted).receive()) == [{"op": "hello", "node": "node0"}]
        client.close()
    os.close(opened)


def test_a_short_path_is_used_as_it_is() -> None:
    assert address("/run/control.sock", -1) == "/run/control.sock"


def test_connecting_to_nobody_raises_and_leaves_nothing_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError):
        connect(str(tmp_path / "control.sock"))
    assert len(os.listdir("/proc/self/fd")) == before
