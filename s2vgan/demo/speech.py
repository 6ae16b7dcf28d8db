"""The demo's speech: who speaks, what is said, and when each sound is heard."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np

from s2vgan.errors import ConfigError, S2VError

SAMPLE_RATE = 16000
_ESPEAK_RATE = 22050
_LEVEL = 0.9 / 32768  # leaves room for what resampling adds to the peaks
_PAUSE = 0.15, 0.6  # seconds between sentences, besides espeak's own 0.3 s


@dataclass(frozen=True)
class Speaker:
    """One of the demo's people.

    Attributes:
        name: for the reader.
        voice: espeak-ng voice and variant.
        pitch: 0 to 100.
        rate: words a minute.
        tint: factors of red, green and blue of the picture.
    """

    name: str
    voice: str
    pitch: int
    rate: int
    tint: tuple[float, float, float]


SPEAKERS = (
    Speaker("Ada", "en-us+f3", 52, 145, (1.0, 1.0, 1.0)),
    Speaker("Ben", "en-us+m3", 38, 138, (0.9, 0.96, 1.08)),
    Speaker("Cleo", "en-gb-x-rp+f2", 66, 155, (1.04, 0.92, 0.78)),
    Speaker("Dan", "en-gb-scotland+m7", 30, 150, (0.78, 0.8, 0.84)),
)


@dataclass(frozen=True)
class Sound:
    """One speech sound.

    Attributes:
        ipa: its name in the International Phonetic Alphabet; empty in a pause.
        start: of the sound in seconds.
        end: of the sound in seconds.
    """

    ipa: str
    start: float
    end: float


# Together they hold every sound of English, next to many others each.
SENTENCES = (
    "My mother makes warm apple muffins on Monday mornings.",
    "Bob put the big brown box by the back door.",
    "Five foxes followed the river far above the valley.",
    "We were walking away when the wild wind woke the wolves.",
    "She sells cheap shoes and fresh fish near the shore.",
    "The judge enjoyed a large orange and a jar of ginger jam.",
    "Three thin thieves thought about the thunder.",
    "They breathe the smooth air with their brothers there.",
    "You used to tune huge musical instruments in the studio.",
    "Look, the good cook took a book full of sugar.",
    "Father parked the car far from the calm garden.",
    "Green trees and deep seas please me each evening.",
    "It is a bit silly to sit in this dim little kitchen.",
    "Ten red hens went west and left seven eggs.",
    "That man has a black cat and a bag of apples.",
    "Some of us love to run under the summer sun.",
    "The boy will join the noisy toys and enjoy the voyage.",
    "How now, the loud crowd ran out of the brown house.",
    "Go slowly over the cold snow and open the old stove.",
    "I might try to climb nine high white towers at night.",
    "Take the day train and wait for the rain to go away.",
    "Her first bird turned and heard the early nurse.",
    "Here we cheer, for the deer appear year after year.",
    "Where is the fair bear that we chased up the stairs?",
    "All the small horses walked across the lawn at dawn.",
    "Pour more water for the four tall daughters.",
    "Usually the vision of treasure gave us great pleasure.",
    "Sing a long song and bring the young king a ring.",
    "Quick queens quietly question the quality of quilts.",
    "Zebras gaze at roses, daisies and lazy bees.",
    "Kate could keep a kite, a coat and a cup of cocoa.",
    "Pack a pretty purple paper parcel for Peter.",
    "Tiny turtles taught Tom to take his time.",
    "Do not dare to drop the dead duck on the deck.",
    "Good gardeners grow grapes, figs and golden eggs.",
    "Hello, how are you, and who has hidden my hat?",
    "Lovely yellow lilies fall along the hill.",
    "Robert rarely reads or writes on rainy afternoons.",
    "Nobody knew when nine new neighbours moved in.",
    "Yes, yesterday your uncle sailed a yellow yacht.",
    "Which watch would you want, the one with the wide wheel?",
    "Speech is made of vowels and consonants.",
    "Move your lips, open your mouth and say it aloud.",
    "A blue moon grew over the cool blue pool.",
    "Vera gave seven velvet gloves to every visitor.",
    "Chip and Rachel chose cheese, cherries and chicken for lunch.",
    "Is anybody at home? Please come to the window.",
    "Wash the dishes, shut the shed and finish the job.",
    "My thumb is numb, but both my arms are warm.",
    "Oh no, the boat will float below the broken bridge!",
    "Please buy a pound of butter, some bread and a plum.",
    "What a beautiful view from the top of the mountain!",
    "The astronaut looked down upon the round blue earth.",
    "Every machine learns from examples, and so do we.",
    "Perhaps the problem began before the meeting.",
    "He thought about it for a while, and then he laughed.",
    "Numbers like one, two, six and eleven are easy.",
    "A tall ship passed the harbour with sixty sailors.",
    "Could you tell me the way to the public library?",
    "Fresh coffee and fruit are served after five.",
)

UNHEARD = (  # what a trained demo is made to say: none of it is in SENTENCES
    "Nobody has ever heard me say this before. "
    "A mouth that opens and closes at the right moment is worth a thousand pretty pictures. "
    "Thank you for watching, and goodbye!"
)


def synthesize(sentences: list[str], speaker: int = 0) -> list[tuple[np.ndarray, list[Sound]]]:
    """Say sentences; the same request gives the same samples.

    Args:
        sentences: English text.
        speaker: index into SPEAKERS.

    Returns:
        For each sentence (n,) float32 at 16 kHz in [-1, 1], and its sounds and pauses, which follow
        each other without a gap up to the end of the sentence.

    Raises:
        ConfigError: if there is no such speaker.
        S2VError: if espeak-ng is not installed or does not work.
    """
    if not 0 <= speaker < len(SPEAKERS):
        raise ConfigError(f"speaker {speaker}: use 0 to {len(SPEAKERS) - 1}.")
    if importlib.util.find_spec("espeakng_loader") is None:
        raise S2VError("The demo's speech needs espeak-ng; install it: pip install -e '.[demo]'")
    who = SPEAKERS[speaker]
    request = {
        "sentences": sentences,
        "voice": who.voice,
        "pitch": who.pitch,
        "rate": who.rate,
    }
    done = subprocess.run(
        [sys.executable, "-m", "s2vgan.demo.espeak"],
        input=json.dumps(request).encode(),
        capture_output=True,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise S2VError(
            f"espeak-ng failed ({said[-1]}); renew it: "
            "pip install --force-reinstall espeakng-loader"
        )
    head, _, samples = done.stdout.partition(b"\n")
    position = 0
    spoken = []
    for sentence in json.loads(head):
        count = sentence["samples"]
        raw = np.frombuffer(samples, "<i2", count, 2 * position)
        position += count
        starts = [0.0, *(start / _ESPEAK_RATE for start, _ in sentence["sounds"][1:])]
        ends = [*starts[1:], count / _ESPEAK_RATE]
        names = [name for _, name in sentence["sounds"]]
        sounds = [Sound(*sound) for sound in zip(names, starts, ends, strict=True)]
        spoken.append((_resample(raw), sounds))
    return spoken


def synthesize_speech(text: str, speaker: int = 0) -> tuple[np.ndarray, list[Sound]]:
    """Say one text. See `synthesize`."""
    return synthesize([text], speaker)[0]


def compose(
    sentences: tuple[str, ...], seconds: float, speaker: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[Sound]]:
    """Speech of a given length: the sentences in random order, again and again, with pauses.

    Args:
        sentences: to draw from; every one is said before any is said again.
        seconds: length; the last sentence is cut there.
        speaker: index into SPEAKERS.
        rng: decides on order and pauses.

    Returns:
        (seconds * 16,000,) float32 in [-1, 1], and the sounds without gaps over the whole of it.
    """
    total = round(seconds * SAMPLE_RATE)
    audio = np.zeros(total, np.float32)
    spoken = synthesize(list(sentences), speaker)
    sounds: list[Sound] = []
    position = round(0.25 * SAMPLE_RATE)
    sounds.append(Sound("", 0.0, position / SAMPLE_RATE))
    while position < total:
        for choice in rng.permutation(len(spoken)):
            samples, inside = spoken[choice]
            samples = samples[: max(total - position, 0)]
            audio[position : position + len(samples)] = samples
            start = position / SAMPLE_RATE
            sounds += [Sound(s.ipa, start + s.start, start + s.end) for s in inside]
            position = round((sounds[-1].end + rng.uniform(*_PAUSE)) * SAMPLE_RATE)
            sounds.append(Sound("", sounds[-1].end, position / SAMPLE_RATE))
    end = total / SAMPLE_RATE
    audio[-160:] *= np.linspace(1, 0, 160, dtype=np.float32)[-len(audio) :]  # no click at the cut
    return audio, [Sound(s.ipa, s.start, min(s.end, end)) for s in sounds if s.start < end]


def _resample(samples: np.ndarray) -> np.ndarray:
    """22,050 Hz int16 to 16,000 Hz float32, a ratio of 441 to 320, by cutting the spectrum.

    The signal begins and ends in silence, so that it may be taken as periodic.
    """
    blocks = -(-len(samples) // 441)
    spectrum = np.fft.rfft(samples, 441 * blocks)[: 160 * blocks + 1]
    return (np.fft.irfft(spectrum, 320 * blocks) * (_LEVEL * 320 / 441)).astype(np.float32)
