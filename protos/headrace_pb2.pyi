from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_STARTING: _ClassVar[State]
    STATE_SERVING: _ClassVar[State]
    STATE_STALLED: _ClassVar[State]
    STATE_DRAINING: _ClassVar[State]
STATE_UNSPECIFIED: State
STATE_STARTING: State
STATE_SERVING: State
STATE_STALLED: State
STATE_DRAINING: State

class Served(_message.Message):
    __slots__ = ("model", "version", "watermark_us", "age_s")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_US_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    watermark_us: int
    age_s: float
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., watermark_us: _Optional[int] = ..., age_s: _Optional[float] = ...) -> None: ...

class Values(_message.Message):
    __slots__ = ("strings", "ints", "floats", "bools", "ids", "lengths", "missing")
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    INTS_FIELD_NUMBER: _ClassVar[int]
    FLOATS_FIELD_NUMBER: _ClassVar[int]
    BOOLS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    strings: Strings
    ints: Ints
    floats: Floats
    bools: Bools
    ids: Ids
    lengths: _containers.RepeatedScalarFieldContainer[int]
    missing: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, strings: _Optional[_Union[Strings, _Mapping]] = ..., ints: _Optional[_Union[Ints, _Mapping]] = ..., floats: _Optional[_Union[Floats, _Mapping]] = ..., bools: _Optional[_Union[Bools, _Mapping]] = ..., ids: _Optional[_Union[Ids, _Mapping]] = ..., lengths: _Optional[_Iterable[int]] = ..., missing: _Optional[_Iterable[int]] = ...) -> None: ...

class Strings(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class Ints(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, values: _Optional[_Iterable[int]] = ...) -> None: ...

class Floats(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class Bools(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, values: _Optional[_Iterable[bool]] = ...) -> None: ...

class Ids(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, values: _Optional[_Iterable[int]] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("model", "features", "schema_fingerprint")
    class FeaturesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Values
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Values, _Mapping]] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    model: str
    features: _containers.MessageMap[str, Values]
    schema_fingerprint: str
    def __init__(self, model: _Optional[str] = ..., features: _Optional[_Mapping[str, Values]] = ..., schema_fingerprint: _Optional[str] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("served", "scores")
    SERVED_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    served: Served
    scores: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, served: _Optional[_Union[Served, _Mapping]] = ..., scores: _Optional[_Iterable[float]] = ...) -> None: ...

class LookupRequest(_message.Message):
    __slots__ = ("model", "table", "ids")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    model: str
    table: str
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, model: _Optional[str] = ..., table: _Optional[str] = ..., ids: _Optional[_Iterable[int]] = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ("served", "rows")
    SERVED_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    served: Served
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    def __init__(self, served: _Optional[_Union[Served, _Mapping]] = ..., rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ...) -> None: ...

class Row(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("served", "state", "problem", "hint", "applied_version", "schema_fingerprint", "schema_json", "rows", "instance", "started_at_us", "swapped_at_us", "max_candidates", "last_problem", "last_problem_at_us")
    SERVED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    APPLIED_VERSION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_US_FIELD_NUMBER: _ClassVar[int]
    SWAPPED_AT_US_FIELD_NUMBER: _ClassVar[int]
    MAX_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    LAST_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    LAST_PROBLEM_AT_US_FIELD_NUMBER: _ClassVar[int]
    served: Served
    state: State
    problem: str
    hint: str
    applied_version: int
    schema_fingerprint: str
    schema_json: str
    rows: int
    instance: str
    started_at_us: int
    swapped_at_us: int
    max_candidates: int
    last_problem: str
    last_problem_at_us: int
    def __init__(self, served: _Optional[_Union[Served, _Mapping]] = ..., state: _Optional[_Union[State, str]] = ..., problem: _Optional[str] = ..., hint: _Optional[str] = ..., applied_version: _Optional[int] = ..., schema_fingerprint: _Optional[str] = ..., schema_json: _Optional[str] = ..., rows: _Optional[int] = ..., instance: _Optional[str] = ..., started_at_us: _Optional[int] = ..., swapped_at_us: _Optional[int] = ..., max_candidates: _Optional[int] = ..., last_problem: _Optional[str] = ..., last_problem_at_us: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("served", "state", "problem")
    SERVED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    served: Served
    state: State
    problem: str
    def __init__(self, served: _Optional[_Union[Served, _Mapping]] = ..., state: _Optional[_Union[State, str]] = ..., problem: _Optional[str] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("model", "to", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    to: int
    reason: str
    def __init__(self, model: _Optional[str] = ..., to: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class RollbackResponse(_message.Message):
    __slots__ = ("served", "record")
    SERVED_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    served: Served
    record: int
    def __init__(self, served: _Optional[_Union[Served, _Mapping]] = ..., record: _Optional[int] = ...) -> None: ...

class PinRequest(_message.Message):
    __slots__ = ("model", "version", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    reason: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class PinResponse(_message.Message):
    __slots__ = ("served", "record")
    SERVED_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    served: Served
    record: int
    def __init__(self, served: _Optional[_Union[Served, _Mapping]] = ..., record: _Optional[int] = ...) -> None: ...
