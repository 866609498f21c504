"""The checks behind the notebooks' exercises and questions, one file per notebook."""

from mmcourse.exercises.engine import check
from mmcourse.exercises.quiz import question

__all__ = ["check", "question"]
