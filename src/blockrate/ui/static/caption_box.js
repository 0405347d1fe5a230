// The box of a caption. What is in it is the browser's own: nothing that is drawn anew
// around it takes away what is being written.
const PAUSE = 400;
const MOVES = { PageUp: -1, PageDown: 1 };

// What a key does to a text at its end; undefined: nothing.
function written(text, { key, ctrlKey, altKey, metaKey, isAltGraph }) {
  if ((ctrlKey || altKey || metaKey) && !isAltGraph) return undefined;
  if (key === "Enter") return `${text}\n`;
  if (key === "Backspace") return [...text].slice(0, -1).join("");
  return [...key].length === 1 ? text + key : undefined;
}

export default {
  props: {
    name: String,
    first: String,
    // how many captions it had before this one
    turn: Number,
    longest: Number,
    rows: Number,
    // what else is to be known of it, for who cannot see what is around it
    more: String,
    // another picture is a key away
    moves: Boolean,
    // the last move that is done
    moved: { type: Number, default: 0 },
    // the picture that is shown has no caption to be written here
    shut: Boolean,
  },
  emits: ["left", "typed", "move"],
  template: `
    <textarea
      ref="box"
      class="caption-box"
      :value="text"
      :rows="rows"
      :maxlength="longest"
      :readonly="waiting"
      :aria-label="name"
      :aria-description="more"
      placeholder="No caption"
      @input="type"
      @blur="leave"
      @keydown="press"
    ></textarea>`,
  data() {
    // waiting: for another picture, whose caption is not this one
    return { text: this.first, waiting: false };
  },
  created() {
    this.asked = this.moved;
    // keys that came meanwhile, which are for the picture that comes
    this.ahead = [];
    // one look at both: the next caption comes with its picture, and then the keys
    this.$watch(() => [this.turn, this.moved], this.catchUp);
    this.told = this.first;
    this.now = this.turn;
    this.hidden = () => document.hidden && this.leave();
    document.addEventListener("visibilitychange", this.hidden);
  },
  beforeUnmount() {
    clearTimeout(this.pause);
    document.removeEventListener("visibilitychange", this.hidden);
  },
  methods: {
    type(event) {
      this.write(event.target.value);
    },
    write(text) {
      this.text = text;
      clearTimeout(this.pause);
      this.pause = setTimeout(() => this.$emit("typed", this.text), PAUSE);
    },
    leave() {
      if (this.text === this.told) return;
      this.told = this.text;
      this.$emit("left", this.text, this.now);
    },
    press(event) {
      // the dialog around it is gone before the box is left
      if (event.key === "Escape" && !event.isComposing) {
        this.leave();
        this.$refs.box.closest(".caption-row")?.querySelector("button").focus();
      }
      const { key, ctrlKey, altKey, metaKey, shiftKey } = event;
      const isMove = this.moves && key in MOVES && !ctrlKey && !shiftKey;
      if (isMove) event.preventDefault();
      if (this.waiting) {
        // a key that is held down goes on as fast as the pictures come
        if (isMove && event.repeat) return;
        const isAltGraph = event.getModifierState("AltGraph");
        this.ahead.push({ key, ctrlKey, altKey, metaKey, isAltGraph, isMove });
      } else if (isMove) this.move(key);
    },
    move(key) {
      this.leave();
      this.waiting = true;
      this.asked += 1;
      this.$emit("move", MOVES[key], this.asked);
    },
    catchUp() {
      if (this.turn !== this.now) this.turnTo(this.first, this.turn);
      if (!this.waiting || this.moved !== this.asked) return;
      this.waiting = false;
      while (this.ahead.length && !this.waiting) this.take(this.ahead.shift());
      // what came after it was left is not left again
      if (document.activeElement !== this.$refs.box) this.leave();
    },
    take(pressed) {
      if (pressed.isMove) return this.move(pressed.key);
      const text = this.shut ? undefined : written(this.text, pressed);
      if (text !== undefined) this.write(text.slice(0, this.longest));
    },
    // The caption of another picture; what is written of the one before is saved.
    turnTo(text, turn) {
      this.leave();
      clearTimeout(this.pause);
      this.text = text;
      this.told = text;
      this.now = turn;
    },
    // What the file holds of a text that was left, unless something else is being written by now.
    saved(text, turn, left) {
      if (turn !== this.now || this.text !== left) return;
      this.text = text;
      this.told = text;
    },
    // It is not in the file: it is saved when the box is left the next time.
    unsaved(turn) {
      if (turn === this.now) this.told = undefined;
    },
  },
};
