"""Errors that a user can cause. The command line prints their sentence and exits with 2."""


class S2VError(Exception):
    """Base of all errors that a user can cause; its text is a sentence that says what to do."""


class ConfigError(S2VError):
    """A setting is unknown, of the wrong type or out of range, or two settings contradict."""


class SourceError(S2VError):
    """A source (video, audio or list) is missing, unreadable, or not what it claims to be."""


class DatasetError(S2VError):
    """A dataset folder is missing, torn, empty, or of another spec than asked for."""


class RunError(S2VError):
    """A run folder, checkpoint, model artifact or registered model is missing or damaged."""


class NoModelError(RunError):
    """A registered model, or the version or alias of it that is asked for, does not exist."""


class OutageError(RunError):
    """MLflow, or where it keeps its files, does not answer; later it may."""


class ServiceError(S2VError):
    """A service cannot start, for example because its port is taken."""


class SandboxError(S2VError):
    """Work in a child process crashed, hung, or went beyond a limit of memory or time."""
