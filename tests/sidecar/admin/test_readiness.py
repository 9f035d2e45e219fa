"""When the sidecar is of use."""

from disco_sidecar.admin.readiness import unready

from .states import a_service, a_state


def test_it_is_ready_when_all_is_well() -> None:
    assert unready(a_state()) == []


def test_it_is_not_while_it_drains() -> None:
    assert unready(a_state(is_draining=True)) == ["draining: it takes no new connections"]


def test_it_is_not_while_nothing_is_known_of_a_service_that_a_port_was_opened_for() -> None:
    assert unready(a_state(a_service("other"))) == ["nothing is known of service 'experiment' yet"]
    waiting = a_service(is_known=False, problem="the registry did not answer")
    assert unready(a_state(waiting)) == ["the registry did not answer"]
    assert unready(a_state(a_service(is_known=False))) == ["nothing is known of service 'experiment' yet"]


def test_a_service_that_somebody_asked_for_by_path_makes_nobody_unready() -> None:
    assert unready(a_state(a_service(), a_service("no-such-thing", is_known=False))) == []


def test_old_knowledge_is_knowledge() -> None:
    assert unready(a_state(a_service(phase="suspect", age=86_400.0, is_suspect=True))) == []


def test_a_service_without_an_instance_is_known_all_the_same() -> None:
    assert unready(a_state(a_service(instances=[]))) == []


def test_whoever_runs_it_may_add_reasons() -> None:
    assert unready(a_state(unready=["worker 2 has not started"])) == ["worker 2 has not started"]
