"""A model file of a bundle as a function of one row, as cheap to call as onnxruntime is."""

from collections.abc import Callable

from deploy.model_files import ModelFile
from deploy.multi.adapter_file import load_adapter, run_options
from deploy.session import open_session


def open_call(file: ModelFile, *, threads: int) -> Callable[[], object]:
    """Open a file and return a function that answers the golden sample's first row.

    Args:
        file: of a bundle that has been verified.
        threads: threads within an operator.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        BundleError: the file cannot be loaded.
    """
    session = open_session(file.path, threads=threads)
    adapter = None if file.adapter is None else load_adapter(file.adapter)
    options = None if adapter is None else run_options(adapter)
    feeds, outputs = {file.feed: file.sample.inputs[:1]}, [file.output]

    def call(kept: object = adapter) -> object:  # onnxruntime does not hold on to an adapter: this function does
        return session.run(outputs, feeds, options)

    return call
