"""Both stores do what every store must."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import pytest

from lightkeep.model.clock import SystemIds
from lightkeep.model.stores import Store
from lightkeep.storage.posix import PosixStore
from lightkeep.testing.stores import CRASH, Crashed, Fault, FaultyStore
from lightkeep.testing.suites.store import StoreSuite


class TestPosixStore(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return PosixStore(PosixStore.initialise(tmp_path / "store", "central", ids=SystemIds()))

    def die_while_writing(self, store: Store, key: str, content: bytes) -> None:
        child = os.fork()
        if child == 0:
            staging = store.stage()
            staging.write(key, io.BytesIO(content), size=len(content))
            staging.sync()
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

    def unmount(self, store: Store) -> None:
        shutil.rmtree(store.record.location)
        Path(store.record.location).mkdir()


class TestFaultyStore(StoreSuite):
    @pytest.fixture
    def store(self) -> Store:
        return FaultyStore()

    def die_while_writing(self, store: Store, key: str, content: bytes) -> None:
        assert isinstance(store, FaultyStore)
        store.medium.faults = [Fault("sync", CRASH)]
        staging = store.stage()
        staging.write(key, io.BytesIO(content), size=len(content))
        with pytest.raises(Crashed):
            staging.sync()
        store.medium.faults = ()

    def unmount(self, store: Store) -> None:
        assert isinstance(store, FaultyStore)
        store.medium.uuid = ""
