"""Damage in a storage, found by hashing all files, whatever their sizes and marks."""

from pipelines.store.artefact import ArtefactStore


def damaged(store: ArtefactStore) -> list[str]:
    """The files of finished artefacts, as STAGE/FINGERPRINT/FILE, whose content is not what the manifest says."""
    return [
        f"{artefact.stage}/{artefact.fingerprint}/{name}"
        for artefact in store.finished("")
        for name, sha256 in artefact.manifest["files"].items()
        if store.storage.files.sha256(store.storage.name(artefact.path / name)) != sha256
    ]
