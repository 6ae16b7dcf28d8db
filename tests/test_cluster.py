import pytest

from s2vgan import cluster
from s2vgan.errors import ServiceError


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("trials", [1, 2])
def test_no_stage_can_starve_another(ray_cluster: None, workers: int, trials: int) -> None:
    """All workers of all trials, and the trials themselves, leave logical CPUs to Ray Data."""
    import ray

    total = ray.cluster_resources()["CPU"]
    assert total >= cluster.LEAST_LOGICAL
    share = cluster.train_resources(workers, trials=trials)["CPU"]
    assert 0 < share <= 1
    assert workers * trials * share + trials * cluster.TRIAL_CPU < total - 1
    workers_here = cluster.extract_workers()
    assert workers_here is not None and workers_here < total


@pytest.mark.ray
def test_trials_do_not_outnumber_the_cores(ray_cluster: None) -> None:
    assert cluster.trial_slots(1) == cluster.cores()
    assert cluster.trial_slots(cluster.cores()) == 1
    with pytest.raises(ServiceError, match=f"needs 99 cores or GPUs, and .* {cluster.cores()} cor"):
        cluster.trial_slots(99)


@pytest.mark.ray
def test_connect_twice_is_one_cluster(ray_cluster: None) -> None:
    import ray

    before = ray.get_runtime_context().gcs_address
    cluster.connect()
    assert ray.get_runtime_context().gcs_address == before


def test_a_joined_cluster_may_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 0.0})
    assert cluster.extract_workers() is None


def test_gpu_workers_have_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 64.0, "GPU": 8.0})
    assert cluster.train_resources(8, gpu=True) == {"CPU": 1.0, "GPU": 1.0}
    assert cluster.trial_slots(2) == 4


def test_trials_of_a_cluster_without_nodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 0.0})
    with pytest.raises(ServiceError, match="0 cores for trials and 0 GPUs"):
        cluster.trial_slots(1)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 16.0, "GPU": 1.0})
    assert cluster.trial_slots(2) == 4, "too few GPUs for a trial: it runs on CPUs"


def test_who_waits_for_others_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 16.0})
    monkeypatch.setattr("ray.available_resources", lambda: {"CPU": 0.5})
    assert cluster.shortage(0.5) == ""
    assert cluster.shortage(1).startswith("0.5 of the cluster's 16 CPUs are free, and 1 are needed")
    monkeypatch.delenv("RAY_ADDRESS")
    assert cluster.shortage(1) == ""
