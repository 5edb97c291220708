"""Clients of people who have logged in."""

from __future__ import annotations

import re

from flask import Flask
from flask.testing import FlaskClient

from opencluster_web.accounts.guard import Role, Visitor
from opencluster_web.accounts.store import AccountStore


def signed_in(app: Flask, role: Role, name: str = "") -> FlaskClient:
    """Return a client of somebody who has logged in.

    `token_of` tells what its forms send against forgery.
    """
    store: AccountStore = app.extensions["opencluster_accounts"]
    name = name or role.word
    account = store.people.find(name) or store.people.add(name, role)
    client = app.test_client()
    with client.session_transaction() as session:
        session["_user_id"] = Visitor(account, account.role, "session").get_id()
        session["_fresh"] = True
    return client


def token_of(client: FlaskClient) -> str:
    """Return what a form of this session sends against forgery."""
    page = client.get("/account").get_data(as_text=True)
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found is not None
    return found[1]
