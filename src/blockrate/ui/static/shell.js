// What only the browser can do for the shell: keys, addresses, focus, and the
// question before unsaved work is left.
const KEYS = { s: "save", o: "open", Enter: "start" };
const DESCRIBED = ["aria-invalid", "aria-describedby", "aria-description"];

export default {
  template: `<span hidden></span>`,
  props: { dirty: Boolean, title: String },
  watch: { title: { immediate: true, handler: (title) => (document.title = title) } },
  mounted() {
    const listen = (target, name, handler) => {
      target.addEventListener(name, handler, true);
      this.stop.push(() => target.removeEventListener(name, handler, true));
    };
    listen(window, "keydown", this.onKey);
    listen(window, "popstate", () =>
      this.$emit(
        "route",
        location.pathname.slice(window.path_prefix.length) + location.search,
      ),
    );
    listen(
      window,
      "beforeunload",
      (event) => this.dirty && !this.lost && event.preventDefault(),
    );
    listen(document, "focusin", ({ target }) => {
      this.describe(target);
      if (!target.closest(".q-dialog")) this.opener = target;
    });
    const observer = new MutationObserver((changes) => {
      for (const { target } of changes)
        this.describe(target.querySelector("[role=combobox]"));
    });
    observer.observe(document.body, { subtree: true, attributeFilter: DESCRIBED });
    // Quasar hangs menus and tooltips beside everything that has a name
    const menus = new MutationObserver(() => {
      for (const kind of ["menu", "tooltip"])
        for (const part of document.querySelectorAll(
          `body > [id^=q-portal--${kind}]`,
        )) {
          part.role = "region";
          part.ariaLabel = kind;
        }
    });
    menus.observe(document.body, { childList: true });
    // A page that finds its server started anew loads itself again, and nobody is to be
    // asked: the draft is kept there.
    const popup = document.getElementById("popup");
    const server = new MutationObserver(() => {
      if (popup.ariaHidden === "false") this.lose();
    });
    if (popup) server.observe(popup, { attributeFilter: ["aria-hidden"] });
    this.stop.push(
      () => observer.disconnect(),
      () => menus.disconnect(),
      () => server.disconnect(),
    );
    // another page of this browser has signed out, and so this one is, too
    const signOut = new BroadcastChannel("sign-out");
    signOut.onmessage = () => {
      this.lost = true;
      location.reload();
    };
    this.stop.push(() => signOut.close());
    window.blockrateFocus = this.focusOn;
    window.blockrateFocusBack = this.focusBack;
  },
  beforeUnmount() {
    this.stop.forEach((stop) => stop());
  },
  created() {
    this.stop = [];
    // what had the focus last outside a dialog
    this.opener = null;
    // the server does not answer
    this.lost = false;
    this.found = () => (this.lost = false);
  },
  methods: {
    lose() {
      this.lost = true;
      // whatever comes shows that it knows this page
      window.socket.offAny(this.found).onAny(this.found);
    },
    onKey(event) {
      const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      const ctrl = event.ctrlKey || event.metaKey;
      if (!action || !ctrl || event.altKey || event.shiftKey) return;
      event.preventDefault();
      if (event.repeat || document.querySelector(".q-dialog")) return;
      // what is being typed counts too
      document.activeElement?.dispatchEvent(new Event("change", { bubbles: true }));
      this.$emit(action);
    },
    visit(path) {
      const address = window.path_prefix + path;
      const here = location.pathname + (path.includes("?") ? location.search : "");
      if (here === address) return;
      // going back to it would lead here again
      const first = location.pathname === window.path_prefix + "/";
      history[first ? "replaceState" : "pushState"](null, "", address);
    },
    // Quasar gives a select's attributes to the frame around what has the focus.
    describe(target) {
      const frame =
        target?.matches?.("[role=combobox]") && target.closest(".q-field__native");
      for (const name of frame ? DESCRIBED : []) {
        if (frame.hasAttribute(name))
          target.setAttribute(name, frame.getAttribute(name));
        else target.removeAttribute(name);
      }
    },
    // A dialog that is closing gives the focus back first; a field in a closed part is opened.
    // Where the opener is drawn anew meanwhile, the button of the same name has its place.
    focusBack(tries = 30) {
      if (tries) setTimeout(() => this.focusBack(tries - 1), 100);
      const { opener } = this;
      const isLost = document.activeElement === document.body;
      if (!isLost || !opener || document.querySelector(".q-dialog")) return;
      const words = opener.textContent;
      const again = [...document.querySelectorAll("button")].find(
        (button) => button.textContent === words && button.offsetParent,
      );
      (opener.isConnected ? opener : again)?.focus();
    },
    focusOn(id, tries = 20) {
      if (document.querySelector(".q-dialog") && tries)
        return setTimeout(() => this.focusOn(id, tries - 1), 50);
      const element = document.getElementById(`c${id}`);
      if (!element) return;
      const part = element.offsetParent ? null : element.closest(".q-expansion-item");
      part?.querySelector(".q-item").click();
      const focusable =
        "input, textarea, button, ul[tabindex], [role=switch], [role=combobox], [tabindex='0']";
      const target = element.matches(focusable)
        ? element
        : element.querySelector(focusable);
      setTimeout(
        () => {
          target?.scrollIntoView({ block: "center" });
          target?.focus();
        },
        part ? 350 : 0,
      );
    },
  },
};
