"""Where data come from while they are measured: folders, EPICS PVAccess, ZeroMQ, bluesky documents, replay.

    folder.FolderWatch      names files of a folder that have settled
    frames.open_source      a `model.acquisition.FrameSource` by its kind
    spool.Recorder          writes what a source yields to HDF5 files, which a `FolderWatch` then names
    documents.Documents     a callback for a RunEngine; `documents.read` says which files a run wrote
    options.checked         the options of each kind, checked

Nothing here knows the catalogue: `lifecycle.acquisitions.acquire` brings both together.
"""
