"""What `infer` calls: one answer, an answer per row of a file, or a chat."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from autoneural.commands import engine_of
from autoneural.errors import UserError
from autoneural.files import expand

if TYPE_CHECKING:
    from autoneural.chat import Settings
    from autoneural.runtime.constraint import Constraint


def infer(args: argparse.Namespace) -> None:
    """One answer with -p, one per row with --prompts, a chat without either."""
    from autoneural.chat import Chat, load_clip, run_once
    from autoneural.conversation import load_conversation
    from autoneural.prompts import load_prompts, run_prompts
    from autoneural.runtime.constraint import Constraint
    from autoneural.runtime.schema import read_schema

    _check(args)
    _check_files(args)
    schema = read_schema(args.json_schema) if args.json_schema else None
    paths = [expand(name) for name in args.image]
    rows = load_prompts(args.prompts) if args.prompts else []
    engine = engine_of(args, exact=args.exact)
    constraint = None
    if schema is not None:
        constraint = Constraint.json_schema(schema, engine.tokenizer, str(args.json_schema))
    settings = _settings(args, constraint)
    clips = [load_clip(engine, expand(name), args.fps or 1.0) for name in args.video]
    if rows:
        run_prompts(engine, rows, settings)
    elif args.prompt is not None:
        pictures = [*paths, *(frame for clip in clips for frame in clip.frames)]
        run_once(engine, args.prompt, pictures, settings, as_json=args.json)
    else:
        history = None
        if args.resume is not None:
            history = load_conversation(expand(args.resume), engine.processor)
        save = None if args.save is None else expand(args.save)
        chat = Chat(engine, settings, save=save, history=history)
        chat.attach(paths)
        for clip in clips:
            chat.attach_clip(clip)
        chat.run()


def _check(args: argparse.Namespace) -> None:
    """What does not go together."""
    if args.prompts and (args.prompt is not None or args.image or args.video):
        raise UserError("--prompts brings questions and pictures: leave -p, --image, --video out")
    if args.fps is not None and not args.video:
        raise UserError("--fps is for the frames of a --video")
    if args.prompts and not args.json:
        raise UserError("--prompts prints JSON lines: add --json")
    if args.prompt is None and args.json and not args.prompts:
        raise UserError("--json prints answers: give the question with -p, or a file of --prompts")


def _check_files(args: argparse.Namespace) -> None:
    """What is kept of a chat, before a model is loaded for it."""
    if (args.save or args.resume) and (args.prompts or args.prompt is not None):
        raise UserError("--save and --resume are for a chat: leave -p and --prompts out")
    if args.resume is not None and args.system is not None:
        raise UserError("--resume brings its own system message: leave --system out")
    if args.save is None:
        return
    place = expand(args.save)
    if not place.parent.is_dir():
        raise UserError(f"--save {place}: no such folder")
    goes_on = args.resume is not None and expand(args.resume).resolve() == place.resolve()
    if place.exists() and not goes_on:
        raise UserError(f"--save {place}: is there already; --resume it as well, or name another")


def _settings(args: argparse.Namespace, constraint: Constraint | None) -> Settings:
    from autoneural.chat import Settings
    from autoneural.runtime import Sampling

    sampling = Sampling(
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        repetition_penalty=args.repetition_penalty,
        presence_penalty=args.presence_penalty,
        frequency_penalty=args.frequency_penalty,
        seed=args.seed,
    )
    return Settings(
        system=args.system,
        sampling=sampling,
        max_tokens=args.max_tokens,
        stop=tuple(args.stop),
        speculate=args.speculate,
        beams=args.beams,
        constraint=constraint,
    )
