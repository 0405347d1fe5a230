// The part of the steps that a chart shows, chosen by mouse, keys and buttons.
// Of the chart it needs `whole`, the first and the last step, and `cursor`, the step looked at.
const TIMES = 2; // nearer, or farther
const FEWEST = 4; // steps that are shown
const SHORTEST = 8; // pixels of a drag

export default {
  data() {
    return {
      part: null, // the first and the last step that are shown; null for all
      drag: null, // where a drag began and where it is, 0 to 1 of the width
    };
  },
  computed: {
    span() {
      return this.part ?? this.whole;
    },
    band() {
      if (!this.drag) return null;
      const [from, to] = [...this.drag].sort((one, other) => one - other);
      return { left: `${100 * from}%`, width: `${100 * (to - from)}%` };
    },
  },
  methods: {
    step(share) {
      const [first, last] = this.span;
      return first + share * (last - first);
    },
    share({ currentTarget, clientX }) {
      const box = currentTarget.getBoundingClientRect();
      return Math.min(1, Math.max(0, (clientX - box.left) / box.width));
    },
    show(first, last) {
      const [start, end] = this.whole;
      const wide = Math.max(FEWEST, last - first);
      if (wide >= end - start) this.part = null;
      else {
        const left = Math.min(Math.max(first, start), end - wide);
        this.part = [left, left + wide];
      }
    },
    showAll() {
      this.part = null;
    },
    // nearer for more than 1, around what is looked at or the middle
    zoom(times) {
      if (!this.span.length) return;
      const [first, last] = this.span;
      const middle = this.cursor ?? (first + last) / 2;
      const half = (last - first) / times / 2;
      this.show(middle - half, middle + half);
    },
    // the part follows what is looked at
    follow(step) {
      const [first, last] = this.span;
      if (step < first) this.show(step, step + last - first);
      if (step > last) this.show(step - last + first, step);
    },
    startDrag(event) {
      // a finger that moves reads values, and scrolls the page
      if (event.pointerType !== "mouse" || event.button) return;
      event.currentTarget.setPointerCapture(event.pointerId);
      const at = this.share(event);
      this.drag = [at, at];
    },
    goOnDragging(event) {
      if (this.drag) this.drag = [this.drag[0], this.share(event)];
    },
    endDrag(event) {
      if (!this.drag) return;
      const [from, to] = [...this.drag].sort((one, other) => one - other);
      const { width } = event.currentTarget.getBoundingClientRect();
      if ((to - from) * width >= SHORTEST) this.show(this.step(from), this.step(to));
      this.drag = null;
    },
    zoomKey(key) {
      if (key === "+" || key === "=") this.zoom(TIMES);
      else if (key === "-") this.zoom(1 / TIMES);
      else if (key === "0" || key === "Escape") this.showAll();
      else return false;
      return true;
    },
  },
};
