"""Edges, order, and what is said about a graph that has none."""

from __future__ import annotations

import pytest

from cinderctl.core.diagnostics import SpecError
from cinderctl.core.values import Ref
from cinderctl.engine.graph import ResourceGraph, teardown_order
from tests.fakes.world import address, app, server


def graph_of(*declarations):
    return ResourceGraph.from_declarations(declarations)


def test_references_in_inputs_are_edges_however_deep():
    deep = server("b", tags={"x": [{"y": Ref(address("server.a"), "id")}]})
    assert graph_of(deep, server("a")).dependencies[address("server.b")] == (address("server.a"),)


def test_creation_order_puts_dependencies_first_and_breaks_ties_by_address():
    graph = graph_of(app("z"), server("b"), server("a", on=["app.z"]), app("c", on=["server.b", "server.a"]))
    assert [str(item) for item in graph.order] == ["app.z", "server.a", "server.b", "app.c"]
    assert graph.order == graph_of(*reversed(list(graph.declarations.values()))).order


def test_longest_remaining_path_counts_the_steps_of_the_longest_chain():
    graph = graph_of(server("a"), server("b", on=["server.a"]), app("c", on=["server.b"]), app("d", on=["server.a"]))
    assert {str(key): value for key, value in graph.longest_remaining().items()} == {
        "server.a": 3,
        "server.b": 2,
        "app.c": 1,
        "app.d": 1,
    }


def test_what_stands_on_what_near_and_far():
    graph = graph_of(server("a"), server("b", on=["server.a"]), app("c", on=["server.b"]))
    assert graph.stands_on(address("app.c")) == {address("server.a"), address("server.b")}
    assert graph.carries(address("server.a")) == {address("server.b"), address("app.c")}


def test_networkx_has_the_same_nodes_and_edges():
    graph = graph_of(server("a"), server("b", on=["server.a"])).to_networkx()
    assert list(graph.edges) == [(address("server.a"), address("server.b"))]


def test_a_missing_dependency_is_named_with_its_line_and_the_nearest_name():
    with pytest.raises(SpecError) as caught:
        graph_of(server("main"), app("web", on=["server.mian"], source="cluster.yaml:9"), app("x", on=["server.q"]))
    first, second = caught.value.diagnostics
    assert first.summary == "app.web needs server.mian, which is not declared"
    assert first.hint == "did you mean server.main?"
    assert (first.source, first.address) == ("cluster.yaml:9", address("app.web"))
    assert second.address == address("app.x")


def test_a_resource_declared_twice_is_an_error():
    with pytest.raises(SpecError, match=r"server\.a is declared twice") as caught:
        graph_of(server("a", source="one.yaml:1"), server("a", source="two.yaml:5"))
    assert "one.yaml:1" in caught.value.diagnostics[0].detail


def test_a_cycle_is_named_with_its_lines():
    with pytest.raises(SpecError) as caught:
        graph_of(
            server("a", on=["app.c"], source="cluster.yaml:1"),
            server("b", on=["server.a"], source="cluster.yaml:2"),
            app("c", on=["server.b"], source="cluster.yaml:3"),
            server("apart"),
        )
    problem = caught.value.diagnostics[0]
    assert problem.summary == "resources need each other in a circle: app.c → server.b → server.a → app.c"
    assert problem.detail == "Declared: app.c at cluster.yaml:3, server.b at cluster.yaml:2, server.a at cluster.yaml:1"


def test_a_resource_that_needs_itself():
    with pytest.raises(SpecError, match=r"server\.a needs itself"):
        graph_of(server("a", on=["server.a"]))


def test_tear_down_is_the_reverse_of_the_recorded_edges():
    a, b, c = address("server.a"), address("server.b"), address("app.c")
    assert teardown_order([a, b, c], {b: [a], c: [b]}) == [c, b, a]


def test_recorded_edges_that_contradict_each_other_do_not_stop_a_tear_down():
    a, b, c = address("server.a"), address("server.b"), address("app.c")
    assert set(teardown_order([a, b, c], {a: [b], b: [a], c: [a]})) == {a, b, c}


def test_a_chain_of_ten_thousand_needs_no_recursion():
    chain = [server("0"), *(server(str(index), on=[f"server.{index - 1}"]) for index in range(1, 10_000))]
    assert len(graph_of(*chain).order) == 10_000
