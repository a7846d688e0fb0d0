"""Synthetic people wearing motion sensors: every truth known (period, rotation, label, gap). All constants are ours."""

from dataclasses import dataclass

import numpy as np

from imu_saga.signal.units import GRAVITY

MOTIONS = 6  # fore-aft, sideways and vertical acceleration [m/s^2]; roll, pitch and yaw [rad]
HARMONICS = 4  # of the stride: 1 is one full stride, 2 is one step


@dataclass(frozen=True)
class Activity:
    """How an activity moves a body.

    Args:
        stride_hz: strides per second [Hz]; 0 for postures.
        acc: amplitude of the (fore-aft, sideways, vertical) acceleration [m/s^2].
        swing: amplitude of (roll, pitch, yaw) [rad].
        step_share: part of the motion at the step (twice the stride's frequency), in [0, 1].
        sharpness: strength of the higher harmonics, as heel strikes make.
        tilt: mean forward pitch of the body part [rad].
    """

    stride_hz: float
    acc: tuple[float, float, float]
    swing: tuple[float, float, float]
    step_share: float
    sharpness: float
    tilt: float


ACTIVITIES: dict[str, Activity] = {
    "sit": Activity(0.0, (0.05, 0.05, 0.05), (0.010, 0.012, 0.010), 0.5, 0.0, 0.45),
    "stand": Activity(0.0, (0.07, 0.07, 0.05), (0.014, 0.014, 0.014), 0.5, 0.0, 0.10),
    "walk": Activity(0.92, (1.5, 1.1, 2.2), (0.10, 0.12, 0.12), 0.70, 0.35, 0.12),
    "stairs_up": Activity(0.80, (1.5, 1.2, 2.0), (0.12, 0.15, 0.13), 0.62, 0.28, 0.24),
    "stairs_down": Activity(0.90, (1.5, 1.2, 2.5), (0.10, 0.12, 0.12), 0.66, 0.52, 0.08),
    "run": Activity(1.32, (3.6, 2.2, 7.0), (0.16, 0.20, 0.20), 0.80, 0.45, 0.20),
    "cycle": Activity(1.05, (1.1, 0.8, 1.0), (0.10, 0.16, 0.10), 0.35, 0.20, 0.50),
}
PLACEMENTS: dict[str, tuple[float, float, float]] = {  # gain of acceleration and of swing, extra pitch [rad]
    "waist": (1.0, 1.0, 0.0),
    "wrist": (1.3, 2.6, 0.9),
    "pocket": (1.1, 2.0, 0.3),
}


@dataclass(frozen=True)
class Population:
    """Who is simulated, doing what, measured how.

    Args:
        subjects: number of people.
        activities: names out of ``ACTIVITIES``, in the order of the labels.
        placements: names out of ``PLACEMENTS``, worn at the same time.
        bout_s: duration of one activity in a session [s].
        sessions: sessions per subject; each holds every activity once, in random order.
        rate_hz: sampling rate [Hz].
        jitter: timing jitter, as a part of the sampling period, below 0.5.
        gaps_per_minute: lost stretches per minute of recording.
        gap_s: longest lost stretch [s].
        tilt_error: spread of how a device is strapped on [rad]; a fixed rotation per subject, session and placement.
        variety: spread between people (cadence, strength, style); 0 makes everyone alike.
        noise: sensor noise, 1 for a phone's.
        seed: seed of everything random.
    """

    subjects: int = 12
    activities: tuple[str, ...] = tuple(ACTIVITIES)
    placements: tuple[str, ...] = ("waist",)
    bout_s: float = 30.0
    sessions: int = 2
    rate_hz: float = 50.0
    jitter: float = 0.15
    gaps_per_minute: float = 0.5
    gap_s: float = 0.3
    tilt_error: float = 0.5
    variety: float = 1.0
    noise: float = 1.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class SyntheticSession:
    """One device's samples in one session, with the truth behind them.

    Args:
        times_s: (samples,) true times [s], jittered and with gaps.
        signal: (samples, 6) acc [m/s^2] and gyro [rad/s] in the device's frame.
        labels: (samples,) int64 indices into the population's activities.
        subject: the subject's name.
        session: the session's name.
        placement: where the device is worn.
        rotation: (3, 3) proper rotation; device vector = rotation @ body vector.
        stride_s: stride period [s] of each activity, 0 for postures; the step's is half of it.
    """

    times_s: np.ndarray
    signal: np.ndarray
    labels: np.ndarray
    subject: str
    session: str
    placement: str
    rotation: np.ndarray
    stride_s: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class _Style:
    """One person's way of doing one activity: stride [Hz], (motions, harmonics) amplitudes and phases, tilt [rad]."""

    stride_hz: float
    amplitude: np.ndarray
    phase: np.ndarray
    tilt: float


def generate(population: Population) -> list[SyntheticSession]:
    """Simulate every session of every subject on every placement.

    Args:
        population: who, what and how; the same one gives the same sessions.

    Returns:
        subjects x sessions x placements sessions, in that order.
    """
    roots = np.random.SeedSequence(population.seed).spawn(population.subjects)
    return [
        made
        for index, root in enumerate(roots)
        for made in _subject(population, f"p{index + 1:02d}", np.random.default_rng(root))
    ]


def random_rotation(generator: np.random.Generator, spread: float) -> np.ndarray:
    """Draw a (3, 3) proper rotation about a uniform axis by a normal angle of standard deviation ``spread`` [rad]."""
    axis = generator.normal(size=3)
    return _rotations((axis / np.linalg.norm(axis) * generator.normal(0, spread))[None])[0]


def _subject(population: Population, name: str, generator: np.random.Generator) -> list[SyntheticSession]:
    cadence = float(np.exp(generator.normal(0, 0.07 * population.variety)))
    strength = float(np.exp(generator.normal(0, 0.22 * population.variety)))
    styles = [
        _style(ACTIVITIES[activity], cadence, strength, population.variety, generator)
        for activity in population.activities
    ]
    made = []
    for session in range(1, population.sessions + 1):
        order = generator.permutation(len(styles))
        made += [
            _session(population, name, f"{name}_{session}", placement, styles, order, generator)
            for placement in population.placements
        ]
    return made


def _style(activity: Activity, cadence: float, strength: float, variety: float, rng: np.random.Generator) -> _Style:
    share = activity.step_share
    profile = np.array([1 - share, share, 0.5 * activity.sharpness, activity.sharpness])
    amplitude = np.array(activity.acc + activity.swing)[:, None] * profile
    amplitude = amplitude * np.exp(rng.normal(0, 0.35 * variety, amplitude.shape)) * strength
    # The phases are the activity's signature, shared by people up to their style.
    phase = 1.7 * np.arange(MOTIONS)[:, None] + 0.9 * np.arange(HARMONICS) * (1 + 3 * activity.tilt)
    phase = phase + rng.normal(0, 0.7 * variety, phase.shape)
    own = cadence * float(np.exp(rng.normal(0, 0.05 * variety)))
    return _Style(activity.stride_hz * own, amplitude, phase, activity.tilt + rng.normal(0, 0.12 * variety))


def _session(
    population: Population,
    subject: str,
    session: str,
    placement: str,
    styles: list[_Style],
    order: np.ndarray,
    rng: np.random.Generator,
) -> SyntheticSession:
    times = _times(population, len(order), rng)
    bout = np.minimum((times / population.bout_s).astype(np.int64), len(order) - 1)
    labels = order[bout].astype(np.int64)
    acc, gyro = np.empty((len(times), 3)), np.empty((len(times), 3))
    for activity, style in enumerate(styles):
        rows = np.flatnonzero(labels == activity)
        acc[rows], gyro[rows] = _measure(style, times[rows], PLACEMENTS[placement], rng)
    rotation = random_rotation(rng, population.tilt_error)
    level = population.noise
    acc = acc @ rotation.T * (1 + rng.normal(0, 0.01 * level, 3)) + rng.normal(0, 0.05 * level, 3)
    gyro = gyro @ rotation.T * (1 + rng.normal(0, 0.01 * level, 3)) + rng.normal(0, 0.01 * level, 3)
    signal = np.concatenate([acc, gyro], axis=1)
    signal += rng.normal(0, 1, signal.shape) * np.repeat([0.06 * level, 0.015 * level], 3)
    stride_s = tuple(1 / style.stride_hz if style.stride_hz else 0.0 for style in styles)
    return SyntheticSession(times, signal, labels, subject, session, placement, rotation, stride_s)


def _times(population: Population, bouts: int, rng: np.random.Generator) -> np.ndarray:
    """Return jittered sampling times [s] with stretches lost."""
    duration = population.bout_s * bouts
    count = round(duration * population.rate_hz)
    times = (np.arange(count) + rng.uniform(-0.5, 0.5, count) * population.jitter) / population.rate_hz
    kept = np.ones(count, dtype=bool)
    for _ in range(rng.poisson(population.gaps_per_minute * duration / 60)):
        start = rng.uniform(1.0, duration - 1.0)
        kept &= ~((times > start) & (times < start + rng.uniform(0.2, 1.0) * population.gap_s))
    return np.maximum(times[kept] - times[0], 0.0)


def _measure(
    style: _Style, times_s: np.ndarray, placement: tuple[float, float, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return (samples, 3) specific force [m/s^2] and angular velocity [rad/s] in the body part's frame."""
    acc_gain, swing_gain, extra_pitch = placement
    strong, leaning = _wander(rng, 1), _wander(rng, 3)
    tilt = np.array([0.0, style.tilt + extra_pitch, 0.0])

    def motion_at(times: np.ndarray) -> np.ndarray:
        return _motion(style, times) * np.exp(0.12 * _drift(times, strong))

    def attitude_at(times: np.ndarray) -> np.ndarray:
        return _rotations(tilt + 0.05 * _drift(times, leaning) + motion_at(times)[:, 3:] * swing_gain)

    step = 1e-3  # [s] of the central difference that turns attitude into angular velocity
    turning = np.swapaxes(attitude_at(times_s - step), 1, 2) @ attitude_at(times_s + step)
    skew = np.stack([turning[:, 2, 1], turning[:, 0, 2], turning[:, 1, 0]], axis=1)
    skew -= np.stack([turning[:, 1, 2], turning[:, 2, 0], turning[:, 0, 1]], axis=1)
    shaking = rng.normal(0, 0.12, (len(times_s), 3)) * style.amplitude[:3].sum(axis=1)
    world = (motion_at(times_s)[:, :3] + shaking) * acc_gain + np.array([0.0, 0.0, GRAVITY])
    return np.einsum("nji,nj->ni", attitude_at(times_s), world), skew / (4 * step)


def _motion(style: _Style, times_s: np.ndarray) -> np.ndarray:
    """Return (samples, 6): accelerations [m/s^2] and angles [rad]; postures sway slowly instead of striding."""
    stride_hz = style.stride_hz or 0.23
    angle = 2 * np.pi * stride_hz * times_s[:, None] * np.arange(1, HARMONICS + 1)
    cosine, sine = style.amplitude * np.cos(style.phase), style.amplitude * np.sin(style.phase)
    return np.sin(angle) @ cosine.T + np.cos(angle) @ sine.T


def _wander(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw (3, count) frequencies [Hz], of periods between 5 and 40 s, and phases [rad] for ``_drift``."""
    return rng.uniform(1 / 40, 1 / 5, (3, count)), rng.uniform(0, 2 * np.pi, (3, count))


def _drift(times_s: np.ndarray, wander: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return (samples, count) slow wander of root mean square 1: three sines each."""
    hz, phase = wander
    return np.sqrt(2 / 3) * np.sin(2 * np.pi * hz * times_s[:, None, None] + phase).sum(axis=1)


def _rotations(vectors: np.ndarray) -> np.ndarray:
    """Return (n, 3, 3) rotation matrices of (n, 3) rotation vectors [rad] (Rodrigues' formula)."""
    angle = np.linalg.norm(vectors, axis=1)
    x, y, z = (vectors / np.maximum(angle, 1e-12)[:, None]).T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    return np.eye(3) + np.sin(angle)[:, None, None] * cross + (1 - np.cos(angle))[:, None, None] * (cross @ cross)
