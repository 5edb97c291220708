"""What programs ask of the pages: whether they work, and their numbers."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from sign_in import signed_in

from opencluster_web.accounts.guard import Role
from opencluster_web.cluster.source import ClusterSource
from opencluster_web.probes import STALE_S

ELSEWHERE = {"REMOTE_ADDR": "192.0.2.7"}


def test_health_is_told_to_everybody(
    anonymous: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = anonymous.get("/healthz", environ_base=ELSEWHERE)
    # the cluster is not there, and the pages are well
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})
    monkeypatch.setattr(ClusterSource, "silence_s", STALE_S + 1)
    answer = anonymous.get("/healthz")
    assert (answer.status_code, answer.json) == (503, {"status": "hangs"})


def test_numbers_are_for_prometheus(anonymous: FlaskClient) -> None:
    for _ in range(3):
        anonymous.get("/healthz")
    answer = anonymous.get("/metrics")
    found = {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    healthz = ("page", "probes.healthz")
    asked = "opencluster_web_requests_total"
    assert found[asked, (healthz, ("status", "200"))] == 3
    assert found["opencluster_web_request_seconds_total", (healthz,)] > 0
    assert found["opencluster_web_streams", ()] == 0
    assert found["opencluster_web_keeps_history", ()] == 0


def test_numbers_are_not_for_strangers(application: Flask) -> None:
    stranger = application.test_client()
    assert stranger.get("/metrics", environ_base=ELSEWHERE).status_code == 403
    wrong = {"Authorization": "Bearer oc_no"}
    answer = stranger.get("/metrics", environ_base=ELSEWHERE, headers=wrong)
    assert answer.status_code == 403
    # behind a proxy everybody comes from this computer
    proxied = {"werkzeug.proxy_fix.orig": {}}
    assert stranger.get("/metrics", environ_overrides=proxied).status_code == 403
    known = signed_in(application, Role.OBSERVER)
    assert known.get("/metrics", environ_base=ELSEWHERE).status_code == 200
